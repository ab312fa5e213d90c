# What SQLite's test harness does differently on Throng. It is sourced at the end of tester.tcl, lock_common.tcl and
# malloc_common.tcl, and does nothing on stock SQLite, so that both run the same files.
#
# SPDX-License-Identifier: MIT

if {![info exists ::env(THRONG_SUITE)]} return

# The test build of SQLite fails calls of a VFS for want of memory before they come to it; also the sync after the call that
# has committed. Throng's own allocations are failed instead (inject.c).
sqlite3_memdebug_vfs_oom_test 0

# --- a test that looks at the file sees what is committed: it is put there first ---

# Handles are commands that sqlite3 (which tester.tcl keeps as sqlite_orig) has made; the first one is made by tester.tcl.
if {[info commands sqlite_orig_stock] eq ""} {
  set ::throng_names {db}
  rename sqlite_orig sqlite_orig_stock
  proc sqlite_orig {args} {
    set result [uplevel 1 [list sqlite_orig_stock {*}$args]]
    if {[llength $args] > 1} {lappend ::throng_names [lindex $args 0]}
    return $result
  }
}

proc throng_handles {} {
  set handles {}
  set ::throng_names [lsort -unique $::throng_names]
  foreach name $::throng_names {
    if {[info commands ::$name] ne "" && [info procs ::$name] eq "" && [sqlite3_get_autocommit $name]} {
      lappend handles $name
    }
  }
  return $handles
}

proc throng_settle {} {
  throng_recover_all
  foreach handle [throng_handles] {
    catch {$handle eval {PRAGMA wal_checkpoint(TRUNCATE)}}
  }
}

# The handle whose main database is this file, or "".
proc throng_handle_of {path} {
  set path [file_stock normalize $path]
  foreach handle [throng_handles] {
    if {![catch {sqlite3_db_filename $handle main} name] && [file_stock normalize $name] eq $path} {return $handle}
  }
  return ""
}

# A file in use is copied as its users are told to copy it: by the backup API, and without its directory.
proc throng_copy {arguments} {
  set names {}
  foreach argument $arguments {
    if {![string match -* $argument]} {lappend names $argument}
  }
  if {[string match *-journal [lindex $names 0]] && [file_stock isdirectory [lindex $names 0]]} {return 1}
  if {[llength $names] == 2} {
    set handle [throng_handle_of [lindex $names 0]]
    if {$handle ne "" && ![file_stock isdirectory [lindex $names 1]]} {
      file_stock delete -force [lindex $names 1]
      $handle backup [lindex $names 1]
      return 1
    }
  }
  return 0
}

# Without the 512 bytes that a checkpoint leaves past the pages until the file is closed.
proc throng_size {path} {
  throng_settle
  set size [file_stock size $path]
  if {$size >= 1024} {
    set channel [open $path rb]
    seek $channel -512 end
    if {[read $channel 8] eq "ThrgEnd1"} {incr size -512}
    close $channel
  }
  return $size
}

if {[info commands file_stock] eq ""} {
  rename file file_stock
  proc file {args} {
    switch -- [lindex $args 0] {
      size {if {[llength $args] == 2} {return [throng_size [lindex $args 1]]}}
      copy {if {[throng_copy [lrange $args 1 end]]} return}
      delete { # a test that deletes a journal knows that it is a file
        foreach path [lrange $args 1 end] {
          if {[string match *-journal $path] && [file_stock isdirectory $path]} {file_stock delete -force $path}
        }
      }
    }
    uplevel 1 [list file_stock {*}$args]
  }
  foreach command {hexio_read hexio_write md5file} {
    if {[info commands $command] ne ""} {
      rename $command ${command}_stock
      proc $command {args} "throng_settle; uplevel 1 \[list ${command}_stock {*}\$args\]"
    }
  }
}

# --- one process ---

# The clients of do_multiclient_test live in this process.
if {[info procs do_multiclient_test] ne ""} {
  proc do_multiclient_test {varname script} {
    proc code1 {tcl} {uplevel #0 $tcl}
    proc code2 {tcl} {uplevel #0 $tcl}
    proc code3 {tcl} {uplevel #0 $tcl}
    faultsim_delete_and_reopen
    sqlite3 db2 test.db
    sqlite3 db3 test.db
    proc sql1 {sql} {db eval $sql}
    proc sql2 {sql} {db2 eval $sql}
    proc sql3 {sql} {db3 eval $sql}
    proc csql1 {sql} {list [catch {sql1 $sql} msg] $msg}
    proc csql2 {sql} {list [catch {sql2 $sql} msg] $msg}
    proc csql3 {sql} {list [catch {sql3 $sql} msg] $msg}
    uplevel [list set $varname 2]
    uplevel $script
    catch {db2 close}
    catch {db3 close}
    catch {db close}
  }
}

# --- faults ---

source [file_stock join [file_stock dirname $::env(THRONG_HARNESS)] faults.tcl]

# --- a file runs to its end ---

# The rest of the test's file, command by command: an error outside of a test is a failure named after its line, and not the
# end of the file.
proc throng_run_rest {path} {
  set in [open $path]
  set lines [split [read $in] \n]
  close $in
  set number [lsearch -regexp $lines {^\s*source\s.*tester\.tcl}]
  if {$number < 0} return
  set command ""
  foreach line [lrange $lines [incr number] end] {
    incr number
    if {$command eq ""} {set first $number}
    append command $line \n
    if {![info complete $command]} continue
    switch -- [catch {uplevel #0 $command} message] {
      0 {}
      1 {
        incr_ntest
        output2 "\n! line-$first expected: \[no error\]"
        output2 "! line-$first got:      \[[lindex [split $message \n] 0]\]"
        fail_test line-$first
      }
      default break
    }
    set command ""
  }
  finish_test
  exit 0
}

# At the end of tester.tcl.
if {[info exists tester_tcl_has_run] && ![info exists throng_runs]} {
  set throng_runs 1
  throng_run_rest $::argv0
}
