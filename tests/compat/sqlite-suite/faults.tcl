# Faults that SQLite's tests inject, into Throng's system calls (inject.c) instead of into a VFS above or below. Sourced by
# harness.tcl.
#
# SPDX-License-Identifier: MIT

# --- I/O errors ---

# A step of a checkpoint that fails is tried again later, and no statement fails by it: an error that was met and not
# reported is no fault. What the database holds is compared all the same, and it must be whole.
if {[info procs do_ioerr_test] ne "" && [info procs do_ioerr_stock] eq ""} {
  rename do_ioerr_test do_ioerr_stock
  set body [info body do_ioerr_stock]
  set strict {expr { ($s && !$r && !$q) || (!$s && $r && $q) }}
  set cleanup {if {[info exists ::ioerropts(-cleanup)]}}
  foreach part [list $strict $cleanup] {
    if {[string first $part $body] < 0} {error "do_ioerr_test is not what it was"}
  }
  proc do_ioerr_test {testname args} [string map [list \
    $strict {expr { ($s && !$r && !$q) || (!$s && $q) }} \
    $cleanup "throng_whole \$testname.\$n.whole\n    $cleanup"] $body]
}

# After an error everything that can be read is whole: a test of its own, which is counted only when it fails.
proc throng_whole {name} {
  set persist $::sqlite_io_error_persist
  set ::sqlite_io_error_persist 0
  foreach handle [throng_handles] {
    if {[catch {sqlite3_db_readonly $handle main}]} continue
    if {[catch {$handle eval {PRAGMA integrity_check}} answer] || $answer eq "ok"} continue
    do_test $name.$handle [list set {} $answer] ok
  }
  set ::sqlite_io_error_persist $persist
}

# --- faults by kind (do_faultsim_test) ---

if {[info exists FAULTSIM(full)] && [info procs do_one_faultsim_stock] eq ""} {
  set throng_serial 0

  proc throng_fail_start {call persist number} {
    set ::sqlite_io_error_hit 0
    set ::env(THRONG_SUITE_FAIL) "$call $number $persist [incr ::throng_serial]"
  }
  proc throng_fail_stop {} {
    unset -nocomplain ::env(THRONG_SUITE_FAIL)
    ioerr_injectstop
  }
  # A statement finds no space where it would write.
  proc throng_full_start {number} {
    set ::sqlite_io_error_hit 0
    set ::sqlite_diskfull 0
    set ::sqlite_diskfull_pending $number
  }
  proc throng_full_stop {} {
    set ::sqlite_diskfull_pending 0
    ioerr_injectstop
  }
  foreach {kind call} {cantopen {open 13} shmerr {map 12}} {
    foreach {name persist} {transient 0 persistent 1} {
      array set throng_options $FAULTSIM($kind-$name)
      set FAULTSIM($kind-$name) [list -injectstart [list throng_fail_start $call $persist] -injectstop throng_fail_stop \
        -injecterrlist $throng_options(-injecterrlist)]
    }
  }
  set FAULTSIM(full) [list -injectstart throng_full_start -injectstop throng_full_stop \
    -injecterrlist {{1 {database or disk is full}}}]

  rename do_one_faultsim_test do_one_faultsim_stock
  set body [info body do_one_faultsim_stock]
  set verdict {do_test $testname.$iFail [list list $rc $res] {0 ok}}
  if {[string first $verdict $body] < 0} {error "do_one_faultsim_test is not what it was"}
  proc do_one_faultsim_test {testname args} [string map [list $verdict "$verdict\n    throng_whole \$testname.\$iFail.whole"] $body]
}

# --- memory ---

# In test builds the calls of a VFS fail for want of memory that they do not ask for, also after the commit. Ours ask.
if {[info commands sqlite3_memdebug_vfs_oom_test] ne ""} {
  sqlite3_memdebug_vfs_oom_test 0
  rename sqlite3_memdebug_vfs_oom_test {}
  proc sqlite3_memdebug_vfs_oom_test {args} {return 0}
}

# --- crashes: in a process of its own, which ends at a sync of Throng's files, as by a power cut ---

# Close what is open, since a database belongs to one process, and return how to open it again.
proc throng_let_go {} {
  set again {}
  foreach handle [throng_handles] {
    set files {}
    if {[catch {$handle eval {PRAGMA database_list} row {
      if {$row(name) ne "temp" && $row(file) ne ""} {lappend files $row(name) $row(file)}
    }}]} continue
    if {$files eq ""} continue
    lappend again $handle $files
    $handle close
  }
  return $again
}

proc throng_take_again {again} {
  foreach {handle files} $again {
    sqlite3 $handle [lindex $files 1]
    foreach {name file} [lrange $files 2 end] {$handle eval "ATTACH '$file' AS $name"}
  }
}

# Databases that no connection has open, and that a crash has left, become plain files.
proc throng_recover_all {} {
  foreach directory [glob -nocomplain -types d *-journal] {
    set path [string range $directory 0 end-8]
    if {![file_stock exists $path] || [throng_handle_of $path] ne ""} continue
    sqlite_orig_stock throng_recovery $path
    catch {throng_recovery eval {SELECT * FROM sqlite_master}}
    throng_recovery close
  }
}

# The test that runs: its script and what it expects.
proc throng_enter_test {call op} {
  set ::throng_test [lrange $call 2 3]
}
if {![info exists throng_test]} {
  set throng_test {{} {}}
  trace add execution do_test enter throng_enter_test
}

# Run crash.tcl in `folder`; how is for THRONG_SUITE_CRASH. A crash is answered as the tests expect it.
proc throng_child {folder how} {
  set here [pwd]
  cd $folder
  set ::env(THRONG_SUITE_CRASH) $how
  set failed [catch {exec [info nameofexec] crash.tcl 2>@1} message]
  set code [lindex $::errorCode 2]
  unset ::env(THRONG_SUITE_CRASH)
  cd $here
  if {!$failed} {return [list 0 {}]}
  if {$code in {77 SIGKILL}} {return [list 1 {child process exited abnormally}]}
  return [list 1 "not a crash: $message"]
}

# How often a file of this pattern is synced: seen in a copy of everything.
proc throng_count {pattern} {
  file_stock delete -force throng-rehearsal
  file_stock mkdir throng-rehearsal
  foreach name [glob -nocomplain *] {
    if {$name ne "throng-rehearsal"} {file_stock copy $name throng-rehearsal}
  }
  set ::env(THRONG_SUITE_COUNT) count.txt
  throng_child throng-rehearsal "sync 1000000000 0 $pattern"
  unset ::env(THRONG_SUITE_COUNT)
  set count 0
  catch {
    set in [open throng-rehearsal/count.txt]
    set count [string trim [read $in]]
    close $in
  }
  file_stock delete -force throng-rehearsal
  return $count
}

# The tests count the syncs of a journal and of the file. Ours are other ones, and fewer: a test that insists on the crash
# gets it, at one of the syncs up to the end of its commit; one that expects none gets none; and one that tries more and more
# until there is none tries all of ours.
proc throng_delay {delay pattern} {
  lassign $::throng_test script expected
  if {$expected eq {0 {}}} {return 1000000000}
  if {![string match *abnormally* $expected] || [regexp {0 \{\}} $script]} {return $delay}
  set count [throng_count $pattern]
  return [expr {$count == 0 ? -1 : ($delay - 1) % $count + 1}]
}

if {[info procs crashsql] ne ""} {
  set throng_seed 0
  proc crashsql {args} {
    array set given {-delay 1 -opendb {sqlite3 db test.db} -tclbody {} -file {} -seed 0}
    foreach {option value} [lrange $args 0 end-1] {
      foreach name {-delay -opendb -tclbody -file -seed -blocksize -characteristics -dfltvfs} {
        if {[string first $option $name] == 0} {set given($name) $value}
      }
    }
    set again [throng_let_go]
    throng_recover_all
    set script [open crash.tcl w]
    puts $script "sqlite3_test_control_pending_byte $::sqlite_pending_byte"
    puts $script "autoinstall_test_functions"
    if {$given(-opendb) ne ""} {
      puts $script [string map {{-vfs crash} {} {multiplex_initialize crash} {multiplex_initialize {}}} $given(-opendb)]
      puts $script "db eval {SELECT * FROM sqlite_master; PRAGMA cache_size=10}"
    }
    if {$given(-seed)} {puts $script "db eval {SELECT randomblob([expr {$given(-seed) % 10007 + 1}])}"}
    puts $script $given(-tclbody)
    if {[lindex $args end] ne ""} {puts $script "db eval {[lindex $args end]}"}
    puts $script {set env(THRONG_SUITE_CRASH) ""}
    close $script

    set pattern [string map {test.db-mj* *} */$given(-file)]
    if {[string match *-journal $pattern]} {append pattern "*"}
    set delay [throng_delay $given(-delay) $pattern]
    if {$delay < 0} {
      set pattern *
      set delay [throng_delay $given(-delay) $pattern]
    }
    set answer [throng_child . "sync $delay [incr ::throng_seed] $pattern"]
    throng_take_again $again
    return $answer
  }

  # Killed at any step of Throng's: what was written stays, what was not written is not there.
  proc crash_on_write {args} {
    set again [throng_let_go]
    throng_recover_all
    set script [open crash.tcl w]
    puts $script "sqlite3_test_control_pending_byte $::sqlite_pending_byte"
    puts $script "sqlite3 db test.db"
    puts $script "db eval {[lindex $args end]}"
    puts $script {set env(THRONG_SUITE_CRASH) ""}
    close $script
    set answer [throng_child . "step [lindex $args end-1]"]
    throng_take_again $again
    return [expr {[lindex $answer 0] ? {1 {child killed: SIGKILL}} : {0 {}}}]
  }
}
