package main

import (
	"context"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	workers = 5
	// How soon a new CustomResourceDefinition is seen. Upstream: 30 seconds.
	discoveryPeriod = 5 * time.Second
	resyncPeriod    = 10 * time.Hour
)

// controllers runs, until it is killed, what makes pods out of Deployments, endpoints out of pods, accounts
// and root certificates for namespaces, and removes what belonged to what is gone. They are constructed one by
// one because kube-controller-manager as a whole takes half as long again to compile.
func controllers(kubeconfig, caFile string) error {
	ctx := context.Background()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 1000
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	shared := informers.NewSharedInformerFactory(client, resyncPeriod)
	core, apps := shared.Core().V1(), shared.Apps().V1()

	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(), client)
	if err != nil {
		return err
	}
	replicaSets := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), core.Pods(), client, replicaset.BurstReplicas)
	slices := endpointslice.NewController(ctx, core.Pods(), core.Services(), core.Nodes(),
		shared.Discovery().V1().EndpointSlices(), 100, client, 0)
	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(),
		core.Namespaces(), client, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return err
	}
	roots, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), client, ca)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	namespaces := namespace.NewNamespaceController(ctx, client, objects,
		client.Discovery().ServerPreferredNamespacedResources, core.Namespaces(), resyncPeriod, corev1.FinalizerKubernetes)

	go deployments.Run(ctx, workers)
	go replicaSets.Run(ctx, workers)
	go slices.Run(ctx, workers)
	go accounts.Run(ctx, workers)
	go roots.Run(ctx, workers)
	go namespaces.Run(ctx, workers)
	return collectGarbage(ctx, config, client, shared)
}

// collectGarbage starts the shared informers, and removes objects whose owners are gone.
func collectGarbage(ctx context.Context, config *rest.Config, client kubernetes.Interface, shared informers.SharedInformerFactory) error {
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	kinds := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	go wait.Until(kinds.Reset, discoveryPeriod, ctx.Done())
	all := informerfactory.NewInformerFactory(shared, metadatainformer.NewSharedInformerFactory(objects, resyncPeriod))
	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, objects, kinds,
		garbagecollector.DefaultIgnoredResources(), all, started)
	if err != nil {
		return err
	}
	all.Start(ctx.Done())
	close(started)
	go collector.Sync(ctx, client.Discovery(), discoveryPeriod)
	collector.Run(ctx, workers, discoveryPeriod)
	return nil
}
