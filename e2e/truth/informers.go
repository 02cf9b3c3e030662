package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	typedinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const patience = 2 * time.Minute

// watched is one cache and how its objects are compared with those of a list.
type watched struct {
	name     string
	resource schema.GroupVersionResource
	informer cache.SharedIndexInformer
	differs  func(cached any, listed *unstructured.Unstructured) error
	faults   *faults
}

// faults are events that can't follow those before them.
type faults struct {
	mutex sync.Mutex
	seen  int
	told  []string
}

func (f *faults) add(format string, args ...any) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.told = append(f.told, fmt.Sprintf(format, args...)); len(f.told) > 5 {
		f.told = f.told[:5]
	}
}

func informers(ctx context.Context, config *rest.Config) error {
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := prepare(ctx, config, dynamicClient); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	lines := newLines()
	disturbed := lines.through(config)
	all, err := watchAll(ctx, disturbed, config)
	if err != nil {
		return err
	}
	for _, one := range all {
		if !cache.WaitForCacheSync(ctx.Done(), one.informer.HasSynced) {
			return fmt.Errorf("%s never was in step", one.name)
		}
	}
	fmt.Println("synced", len(all))
	disturb, calm := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { lines.cut(disturb) })
	ledger := newLedger()
	if err := write(disturb, &running, config, ledger); err != nil {
		calm()
		return err
	}
	// Whoever steers says when it is enough.
	if !bufio.NewScanner(os.Stdin).Scan() {
		calm()
		return fmt.Errorf("nobody steers any more")
	}
	calm()
	running.Wait()
	return judge(ctx, all, dynamicClient, ledger)
}

// watchAll starts a cache in each form for each kind that can be listed and watched.
func watchAll(ctx context.Context, disturbed, calm *rest.Config) ([]watched, error) {
	finder, err := discovery.NewDiscoveryClientForConfig(calm)
	if err != nil {
		return nil, err
	}
	_, lists, err := finder.ServerGroupsAndResources()
	if err != nil {
		return nil, err
	}
	typed, err := kubernetes.NewForConfig(disturbed)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(disturbed)
	if err != nil {
		return nil, err
	}
	partial, err := metadata.NewForConfig(disturbed)
	if err != nil {
		return nil, err
	}
	typedFactory := typedinformers.NewSharedInformerFactory(typed, 0)
	untypedFactory := dynamicinformer.NewDynamicSharedInformerFactory(untyped, 0)
	partialFactory := metadatainformer.NewSharedInformerFactory(partial, 0)
	var all []watched
	watchable := discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "watch"}}, lists)
	resources, err := discovery.GroupVersionResources(watchable)
	if err != nil {
		return nil, err
	}
	for resource := range resources {
		name := resource.String()
		if known, err := typedFactory.ForResource(resource); err == nil {
			all = append(all, watched{"typed " + name, resource, known.Informer(), typedDiffers, &faults{}})
		}
		all = append(all,
			watched{"dynamic " + name, resource, untypedFactory.ForResource(resource).Informer(), dynamicDiffers, &faults{}},
			watched{"metadata " + name, resource, partialFactory.ForResource(resource).Informer(), metadataDiffers, &faults{}})
	}
	for _, one := range all {
		if err := one.follow(); err != nil {
			return nil, err
		}
	}
	typedFactory.Start(ctx.Done())
	untypedFactory.Start(ctx.Done())
	partialFactory.Start(ctx.Done())
	return all, nil
}

// follow notes events that can't be: an object that comes twice, changes or goes without being there, or goes back in time.
func (w *watched) follow() error {
	revisions := map[string]uint64{}
	note := func(what string, object any, wanted bool) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			w.faults.add("%s of %T: %v", what, object, err)
			return
		}
		key := accessor.GetNamespace() + "/" + accessor.GetName()
		revision, err := strconv.ParseUint(accessor.GetResourceVersion(), 10, 64)
		if err != nil {
			w.faults.add("%s of %s: %v", what, key, err)
		}
		before, there := revisions[key]
		if there != wanted {
			w.faults.add("%s of %s, which was there: %v", what, key, there)
		}
		if revision < before {
			w.faults.add("%s of %s at revision %d after %d", what, key, revision, before)
		}
		w.faults.mutex.Lock()
		w.faults.seen++
		w.faults.mutex.Unlock()
		if what == "DELETED" {
			delete(revisions, key)
		} else {
			revisions[key] = revision
		}
	}
	_, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { note("ADDED", object, false) },
		UpdateFunc: func(_, object any) { note("MODIFIED", object, true) },
		DeleteFunc: func(object any) { note("DELETED", object, true) },
	})
	return err
}

// judge waits until each cache equals a list, and says what stayed different.
func judge(ctx context.Context, all []watched, client dynamic.Interface, ledger *ledger) error {
	deadline := time.Now().Add(patience)
	var wrong []string
	objects, events := 0, 0
	for _, one := range all {
		for {
			listed, err := client.Resource(one.resource).List(ctx, metav1.ListOptions{})
			if err == nil {
				err = compare(&one, listed)
			}
			if err == nil {
				objects += len(listed.Items)
				break
			}
			if time.Now().After(deadline) {
				wrong = append(wrong, fmt.Sprintf("%s: %v", one.name, err))
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		one.faults.mutex.Lock()
		for _, fault := range one.faults.told {
			wrong = append(wrong, fmt.Sprintf("%s: %s", one.name, fault))
		}
		events += one.faults.seen
		one.faults.mutex.Unlock()
	}
	wrong = append(wrong, ledger.check(ctx, client)...)
	if len(wrong) > 0 {
		return fmt.Errorf("%d differences\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
	fmt.Println("true caches", len(all), "objects", objects, "events", events, "writes", ledger.writes.Load(), "uncertain", ledger.uncertain.Load())
	return nil
}

func compare(one *watched, listed *unstructured.UnstructuredList) error {
	cached := one.informer.GetStore()
	if len(cached.ListKeys()) != len(listed.Items) {
		return fmt.Errorf("%d cached, %d listed", len(cached.ListKeys()), len(listed.Items))
	}
	for i := range listed.Items {
		item := &listed.Items[i]
		key := item.GetName()
		if item.GetNamespace() != "" {
			key = item.GetNamespace() + "/" + key
		}
		object, there, err := cached.GetByKey(key)
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("%s is listed and not cached", key)
		}
		if err := one.differs(object, item); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func dynamicDiffers(cached any, listed *unstructured.Unstructured) error {
	if object, ok := cached.(*unstructured.Unstructured); !ok || !reflect.DeepEqual(object.Object, listed.Object) {
		return fmt.Errorf("cached %v, listed %v", cached, listed)
	}
	return nil
}

func metadataDiffers(cached any, listed *unstructured.Unstructured) error {
	var wanted metav1.PartialObjectMetadata
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(listed.Object, &wanted); err != nil {
		return err
	}
	object, ok := cached.(*metav1.PartialObjectMetadata)
	if !ok || !equality.Semantic.DeepEqual(object.ObjectMeta, wanted.ObjectMeta) {
		return fmt.Errorf("cached %v, listed %v", cached, wanted)
	}
	return nil
}

// typedDiffers compares what came as protobuf with what was listed as JSON.
func typedDiffers(cached any, listed *unstructured.Unstructured) error {
	wanted, err := scheme.Scheme.New(listed.GroupVersionKind())
	if err != nil {
		return err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(listed.Object, wanted); err != nil {
		return err
	}
	object, ok := cached.(runtime.Object)
	if !ok {
		return fmt.Errorf("%T is no object", cached)
	}
	// What a cache holds names no type, or the type of its list's items.
	object = object.DeepCopyObject()
	object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	wanted.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if !equality.Semantic.DeepEqual(object, wanted) {
		return fmt.Errorf("cached %v, listed %v", object, wanted)
	}
	return nil
}
