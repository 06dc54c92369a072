// Command cluster is the control plane of the tests as one program: etcd, kube-apiserver and the few
// controllers that the tests need, each of them upstream's own code. Nothing here is for production.
package main

import (
	"fmt"
	"os"

	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

const usage = `usage: cluster etcd FOLDER CLIENT-PORT PEER-PORT
       cluster kube-apiserver FLAGS...
       cluster controllers KUBECONFIG CA-FILE`

func main() {
	if len(os.Args) < 2 {
		fail(usage)
	}
	rest := os.Args[2:]
	var err error
	switch command := os.Args[1]; {
	case command == "etcd" && len(rest) == 3:
		err = etcd(rest[0], rest[1], rest[2])
	case command == "kube-apiserver":
		server := apiserver.NewAPIServerCommand()
		server.SetArgs(rest)
		err = server.Execute()
	case command == "controllers" && len(rest) == 2:
		err = controllers(rest[0], rest[1])
	default:
		fail(usage)
	}
	if err != nil {
		fail(err)
	}
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
