/* Which file systems are shared with other machines. The numbers are those of statfs(2) and linux/magic.h.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"

#include <sys/vfs.h>

const char *thr_os_shared_filesystem(unsigned long type)
{
    static const struct {
        unsigned long type;
        const char *name;
    } SHARED[] = {
        {0x6969, "NFS"},          {0x517b, "SMB"},        {0xff534d42, "CIFS"},   {0xfe534d42, "SMB"},
        {0x01021997, "9P"},       {0x65735546, "FUSE"},   {0x786f4256, "vboxsf"}, {0xbacbacbc, "vmhgfs"},
        {0x5346414f, "AFS"},      {0x6b414653, "AFS"},    {0x73757245, "Coda"},   {0x00c36400, "Ceph"},
        {0x01161970, "GFS2"},     {0x7461636f, "OCFS2"},  {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"},
        {0x19830326, "BeeGFS"},   {0x564c, "NCP"},        {0x7c7c6673, "prl_fs"}, {0xaad7aaea, "PanFS"},
        {0x20030528, "OrangeFS"}, {0x013661dc, "WekaFS"},
    };

    for (size_t i = 0; i < sizeof SHARED / sizeof SHARED[0]; i++)
        if (SHARED[i].type == (type & 0xffffffff))
            return SHARED[i].name;
    return NULL;
}

const char *thr_os_filesystem_is_shared(int fd)
{
    struct statfs fs;
    int err = thr_os_fault_fd(THR_OS_STAT, fd);

    THR_OS_TRY(err, fstatfs(fd, &fs));
    return err == 0 ? thr_os_shared_filesystem((unsigned long)fs.f_type) : NULL;
}
