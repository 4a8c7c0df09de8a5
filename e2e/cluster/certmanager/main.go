// cert-manager's controllers for CA and self-signed issuers, run from its public packages: its own
// commands are nested modules that nobody can require. No webhook, no ACME, no leader election.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
)

// Each controller works on this many objects at once.
const workers = 2

// Controllers that another one's package registers too, and that want CRDs which aren't there.
var unwanted = []string{"acme", "gateway", "ingress"}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the cluster, as an administrator")
	namespace := flag.String("cluster-resource-namespace", "cert-manager", "where cluster issuers' Secrets are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *namespace); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, namespace string) error {
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:         kubeconfig,
		KubernetesAPIQPS:   200,
		KubernetesAPIBurst: 400,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: namespace},
		CertificateOptions: controller.CertificateOptions{
			CertificateRequestMinimumBackoffDuration: 10 * time.Second,
			CertificateRequestMaximumBackoffDuration: time.Minute,
		},
	})
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	ready := map[string]controller.Interface{}
	for name, construct := range controller.Known() {
		if !wanted(name) {
			continue
		}
		if ready[name], err = construct(factory); err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
	}
	// Only now does every controller have its informers registered.
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	return serve(ctx, ready)
}

// serve answers when all controllers have ended, by the first error of any.
func serve(ctx context.Context, controllers map[string]controller.Interface) error {
	var group sync.WaitGroup
	failures := make(chan error, len(controllers))
	for name, one := range controllers {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := one.Run(workers, ctx); err != nil {
				failures <- fmt.Errorf("controller %s: %w", name, err)
			}
		}()
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	select {
	case err := <-failures:
		return err
	case <-done:
		return nil
	}
}

func wanted(name string) bool {
	for _, word := range unwanted {
		if strings.Contains(name, word) {
			return false
		}
	}
	return true
}
