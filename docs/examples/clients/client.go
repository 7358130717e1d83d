// The least that a client of `heartline serve` must do, with the framing `lines`.
//
//	go run client.go HOST:PORT [BOUND], with BOUND as 20s: heartbeat + retry * missed
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"net"
	"os"
	"time"
)

// hold reads until the connection ends. It returns whether the server said anything.
func hold(conn net.Conn, bound time.Duration) (heard bool) {
	defer conn.Close()
	fmt.Fprint(conn, "hello\n")
	reader, line, heardAt := bufio.NewReader(conn), "", time.Now()
	for {
		conn.SetReadDeadline(time.Now().Add(bound / 4))
		part, err := reader.ReadString('\n')
		if part != "" {
			heard, heardAt = true, time.Now()
		}
		line += part
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			if time.Since(heardAt) >= bound {
				return heard // silent for too long: the server or the way to it is gone
			}
			fmt.Fprint(conn, "ping\n") // any answer shows that it lives
			continue
		} else if err != nil {
			return heard // closed by the server
		}
		switch line {
		case "ping\n":
			fmt.Fprint(conn, "pong\n")
		case "pong\n":
		default:
			fmt.Print(line)
		}
		line = ""
	}
}

func main() {
	bound := 20 * time.Second
	if len(os.Args) > 2 {
		bound, _ = time.ParseDuration(os.Args[2])
	}
	for failures := 0; ; {
		conn, err := net.DialTimeout("tcp", os.Args[1], 5*time.Second)
		if err == nil && hold(conn, bound) {
			failures = 0
		} else if failures < 6 {
			failures++
		}
		// A random wait, so that a fleet does not come back at the same instant.
		most := 500 * time.Millisecond << failures
		if most > 30*time.Second {
			most = 30 * time.Second
		}
		time.Sleep(50*time.Millisecond + time.Duration(rand.Int63n(int64(most))))
	}
}
