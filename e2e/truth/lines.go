package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// lines are the connections of the watchers, which can be cut.
type lines struct {
	mutex sync.Mutex
	open  map[net.Conn]struct{}
	down  bool
}

func newLines() *lines { return &lines{open: map[net.Conn]struct{}{}} }

// line leaves the set when it is closed.
type line struct {
	net.Conn
	of *lines
}

func (l *line) Close() error {
	l.of.mutex.Lock()
	delete(l.of.open, l)
	l.of.mutex.Unlock()
	return l.Conn.Close()
}

// through gives a configuration whose connections are in the set.
func (l *lines) through(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		if l.down {
			return nil, errors.New("the network is down")
		}
		connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		made := &line{connection, l}
		l.open[made] = struct{}{}
		return made, nil
	}
	return config
}

// cut cuts all connections again and again, and now and then keeps them down for some time.
func (l *lines) cut(ctx context.Context) {
	for ctx.Err() == nil {
		l.set(rand.IntN(5) == 0)
		wait(ctx, time.Duration(rand.IntN(1000))*time.Millisecond)
	}
	l.set(false)
}

func (l *lines) set(down bool) {
	l.mutex.Lock()
	l.down = down
	open := make([]net.Conn, 0, len(l.open))
	for connection := range l.open {
		open = append(open, connection)
	}
	l.mutex.Unlock()
	for _, connection := range open {
		// Who used it hears of it, which is the point.
		_ = connection.Close()
	}
}

func wait(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}
