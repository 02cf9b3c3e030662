package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	things      = schema.GroupVersionResource{Group: "truth.moorline.dev", Version: "v1", Resource: "things"}
	maps        = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

// prepare makes the custom resource that is written too.
func prepare(ctx context.Context, config *rest.Config, client dynamic.Interface) error {
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "things.truth.moorline.dev"},
		"spec": map[string]any{
			"group": things.Group, "scope": "Namespaced",
			"names": map[string]any{"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{
					"type": "object", "x-kubernetes-preserve-unknown-fields": true,
				}},
			}},
		},
	}}
	if _, err := client.Resource(definitions).Create(ctx, definition, metav1.CreateOptions{}); err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for {
		_, err := client.Resource(things).List(ctx, metav1.ListOptions{})
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// ledger knows what the server promised to keep: the value of each ConfigMap whose last write was acknowledged.
type ledger struct {
	writes    atomic.Int64
	uncertain atomic.Int64
	mutex     sync.Mutex
	promised  map[string]string
}

const absent = "(absent)"

func newLedger() *ledger { return &ledger{promised: map[string]string{}} }

// acknowledged counts a write.
func (l *ledger) acknowledged() {
	if count := l.writes.Add(1); count%250 == 0 {
		fmt.Println("writes", count)
	}
}

func (l *ledger) promise(name, value string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.promised[name] = value
}

// check says which promises were broken.
func (l *ledger) check(ctx context.Context, client dynamic.Interface) []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	var broken []string
	for name, value := range l.promised {
		found, err := valueOf(ctx, client, name)
		if err != nil || found != value {
			broken = append(broken, fmt.Sprintf("ConfigMap %s was acknowledged as %s and is %s (%v)", name, value, found, err))
		}
	}
	return broken
}

func valueOf(ctx context.Context, client dynamic.Interface, name string) (string, error) {
	found, err := client.Resource(maps).Namespace("default").Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return absent, nil
	}
	if err != nil {
		return "", err
	}
	value, _, err := unstructured.NestedString(found.Object, "data", "n")
	return value, err
}

// write starts the writers, which go on until the context ends.
func write(ctx context.Context, running *sync.WaitGroup, config *rest.Config, ledger *ledger) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	steps := []func(context.Context, string, int) error{
		func(ctx context.Context, name string, n int) error { return claims(ctx, client, name, n) },
		func(ctx context.Context, name string, n int) error { return customs(ctx, untyped, name, n) },
		func(ctx context.Context, name string, n int) error { return others(ctx, client, name, n) },
	}
	for _, step := range steps {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				err := step(ctx, strconv.Itoa(rand.IntN(20)), n)
				if err == nil {
					ledger.acknowledged()
				} else if !isRefusal(err) {
					wait(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	running.Go(func() { promises(ctx, client, untyped, ledger) })
	return nil
}

// isRefusal tells an answer of the server from the lack of one.
func isRefusal(err error) bool {
	_, is := err.(apierrors.APIStatus)
	return is
}

// promises writes ConfigMaps and keeps the ledger. It alone writes these.
func promises(ctx context.Context, client kubernetes.Interface, untyped dynamic.Interface, ledger *ledger) {
	maps := client.CoreV1().ConfigMaps("default")
	enough := ctx.Done()
	// A request that is given up may still be done later, when nobody looks any more.
	ctx = context.WithoutCancel(ctx)
	for n := 0; ; n++ {
		select {
		case <-enough:
			return
		default:
		}
		name := "promise-" + strconv.Itoa(n%10)
		value := strconv.Itoa(n)
		var err error
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": value}}
		switch {
		case rand.IntN(10) == 0:
			value = absent
			err = maps.Delete(ctx, name, metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				err = nil
			}
		case rand.IntN(2) == 0:
			patch := fmt.Sprintf(`{"data":{"n":%q}}`, value)
			_, err = maps.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		default:
			_, err = maps.Update(ctx, object, metav1.UpdateOptions{})
		}
		if apierrors.IsNotFound(err) {
			_, err = maps.Create(ctx, object, metav1.CreateOptions{})
		}
		if err == nil {
			ledger.promise(name, value)
			ledger.acknowledged()
			continue
		}
		// It may be done or not; the next read says, once there is one.
		ledger.uncertain.Add(1)
		for {
			found, err := valueOf(ctx, untyped, name)
			if err == nil {
				ledger.promise(name, found)
				break
			}
			wait(ctx, 20*time.Millisecond)
		}
	}
}

func claims(ctx context.Context, client kubernetes.Interface, name string, n int) error {
	claims := client.CoreV1().PersistentVolumeClaims("default")
	class := "nobody"
	var err error
	switch n % 3 {
	case 0:
		_, err = claims.Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1536Mi")}},
			},
		}, metav1.CreateOptions{})
	case 1:
		patch := fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, n)
		_, err = claims.Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	default:
		err = claims.Delete(ctx, name, metav1.DeleteOptions{})
	}
	return err
}

func customs(ctx context.Context, client dynamic.Interface, name string, n int) error {
	things := client.Resource(things).Namespace("default")
	var err error
	switch n % 4 {
	case 0:
		_, err = things.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "truth.moorline.dev/v1", "kind": "Thing", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"n": int64(n), "list": []any{"a", int64(1), true}},
		}}, metav1.CreateOptions{})
	case 1:
		patch := fmt.Sprintf(`{"spec":{"n":%d}}`, n)
		_, err = things.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	case 2:
		patch := fmt.Sprintf(`{"status":{"n":%d}}`, n)
		_, err = things.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	default:
		err = things.Delete(ctx, name, metav1.DeleteOptions{})
	}
	return err
}

func others(ctx context.Context, client kubernetes.Interface, name string, n int) error {
	var err error
	switch n % 5 {
	case 0:
		_, err = client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "secret-" + name}, Data: map[string][]byte{"n": {0, 1, 255}},
		}, metav1.CreateOptions{})
	case 1:
		err = client.CoreV1().Secrets("default").Delete(ctx, "secret-"+name, metav1.DeleteOptions{})
	case 2:
		_, err = client.EventsV1().Events("default").Create(ctx, &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("event-%d", n)}, EventTime: metav1.NowMicro(),
			Action: "Test", Reason: "Test", Note: "one of many", Type: "Normal",
			ReportingController: "moorline.dev/truth", ReportingInstance: "truth",
			Regarding: corev1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: "promise-0"},
		}, metav1.CreateOptions{})
	case 3:
		space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "space-" + name}}
		_, err = client.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{})
	default:
		err = client.CoreV1().Namespaces().Delete(ctx, "space-"+name, metav1.DeleteOptions{})
	}
	return err
}
