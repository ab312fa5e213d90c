// The work of `throng bench stmt` with Go's database/sql: one prepared statement, many goroutines.
//
// Arguments: database, goroutines, rows, seconds, connections. Prints operations, processor time in nanoseconds, and seconds.
//
// SPDX-License-Identifier: MIT
package main

import (
	"database/sql"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

const batch = 16 // operations between two looks at the phase

const (
	warmUp = iota
	measure
	stop
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func number(text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	must(err)
	return value
}

func cpu() int64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	path, threads, rows := os.Args[1], int(number(os.Args[2])), int64(number(os.Args[3]))
	seconds := time.Duration(number(os.Args[4]) * float64(time.Second))
	connections := int(number(os.Args[5]))

	db, err := sql.Open("sqlite3", "file:"+path)
	must(err)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	stmt, err := db.Prepare("SELECT v FROM t WHERE id=?")
	must(err)

	var phase int32
	var operations int64
	var wait sync.WaitGroup
	for i := 0; i < threads; i++ {
		wait.Add(1)
		go func(seed int64) {
			defer wait.Done()
			random := rand.New(rand.NewSource(seed))
			counted := int64(0)
			for {
				now := atomic.LoadInt32(&phase)
				if now == stop {
					break
				}
				for k := 0; k < batch; k++ {
					var v string
					must(stmt.QueryRow(1 + random.Int63n(rows)).Scan(&v))
				}
				if now == measure {
					counted += batch
				}
			}
			atomic.AddInt64(&operations, counted)
		}(int64(i))
	}
	time.Sleep(300 * time.Millisecond)
	cpuBegan, began := cpu(), time.Now()
	atomic.StoreInt32(&phase, measure)
	time.Sleep(seconds)
	atomic.StoreInt32(&phase, stop)
	cpuTime, took := cpu()-cpuBegan, time.Since(began)
	wait.Wait()
	fmt.Println(operations, cpuTime, took.Seconds())
}
