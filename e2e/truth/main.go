// Command truth runs client-go, as any controller does, against a server that is disturbed meanwhile, and tells whether
// what client-go believes is true. It is steered through standard input and answers in lines on standard output.
//
//	truth informers  caches of every kind, under writers and cut connections, compared with lists at the end
//	truth elect      a candidate of a leader election
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("say what to do: informers or elect"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "path of the kubeconfig")
	identity := flags.String("id", "", "elect: the candidate's name")
	if err := flags.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fail(err)
	}
	// The server's own limits are what is tested, not this program's.
	config.QPS = -1
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	run := map[string]func(context.Context, *rest.Config) error{
		"informers": informers,
		"elect":     func(ctx context.Context, config *rest.Config) error { return elect(ctx, config, *identity) },
	}[os.Args[1]]
	if run == nil {
		fail(fmt.Errorf("%s is nothing to do", os.Args[1]))
	}
	if err := run(ctx, config); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Println("failed:", err)
	os.Exit(1)
}
