package table

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
)

var generator = sync.OnceValue(func() *printers.HumanReadableGenerator {
	return printers.NewTableGenerator().With(printersinternal.AddHandlers)
})

// Of returns the table of objects, which are all of the kind gvk, in the given
// order. It holds every column, wide ones included: the client leaves out those
// with a priority, as with Kubernetes. Ages are those of the moment of the call.
//
// Each row carries, as include says, nothing of its object, its metadata, or
// the object itself (KEP "server-side get and partial objects").
func Of(gvk schema.GroupVersionKind, objects []runtime.Object, include metav1.IncludeObjectPolicy) (*metav1.Table, error) {
	out := &metav1.Table{Rows: make([]metav1.TableRow, 0, len(objects))}
	for _, object := range objects {
		rows, columns, err := rowsOf(object)
		if err != nil {
			return nil, fmt.Errorf("table of %s: %w", gvk.Kind, err)
		}
		out.ColumnDefinitions = columns
		for i := range rows {
			if rows[i].Object, err = embed(object, include); err != nil {
				return nil, fmt.Errorf("table of %s: %w", gvk.Kind, err)
			}
		}
		out.Rows = append(out.Rows, rows...)
	}
	if len(objects) == 0 {
		columns, err := columnsOf(gvk)
		if err != nil {
			return nil, fmt.Errorf("table of %s: %w", gvk.Kind, err)
		}
		out.ColumnDefinitions = columns
	}
	out.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("Table"))
	return out, nil
}

// columnsOf returns the columns of a kind by printing an empty object of it.
func columnsOf(gvk schema.GroupVersionKind) ([]metav1.TableColumnDefinition, error) {
	object, err := kube.Scheme().New(gvk)
	if err != nil {
		return nil, err
	}
	_, columns, err := rowsOf(object)
	return columns, err
}

// rowsOf prints one object. Kubernetes' printers take its internal version.
func rowsOf(object runtime.Object) ([]metav1.TableRow, []metav1.TableColumnDefinition, error) {
	if fleet, ours := object.(*api.Fleet); ours {
		return fleetRow(fleet)
	}
	internal, err := kube.Scheme().UnsafeConvertToVersion(object.DeepCopyObject(), runtime.InternalGroupVersioner)
	if err != nil {
		return nil, nil, err
	}
	t, err := generator().GenerateTable(internal, printers.GenerateOptions{Wide: true})
	if err != nil {
		return plainRow(object) // the only error is that there is no printer
	}
	return t.Rows, t.ColumnDefinitions, nil
}

// plainRow prints a kind for which Kubernetes has no printer, as its default
// table convertor does.
func plainRow(object runtime.Object) ([]metav1.TableRow, []metav1.TableColumnDefinition, error) {
	m, err := meta.Accessor(object)
	if err != nil {
		return nil, nil, err
	}
	columns := []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	}
	created := m.GetCreationTimestamp().UTC().Format(time.RFC3339)
	return []metav1.TableRow{{Cells: []any{m.GetName(), created}}}, columns, nil
}

// fleetRow prints the settings of a fleet.
func fleetRow(f *api.Fleet) ([]metav1.TableRow, []metav1.TableColumnDefinition, error) {
	columns := []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		{Name: "On Failed Rollout", Type: "string", Description: "what becomes of a Deployment whose rollout has missed its progress deadline"},
		{Name: "Rebalance", Type: "string", Description: "whether pods that run well move to nodes with more room"},
		{Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	}
	age := "<unknown>"
	if t := f.CreationTimestamp; !t.IsZero() {
		age = duration.HumanDuration(time.Since(t.Time))
	}
	row := metav1.TableRow{Cells: []any{
		f.Name, string(cmp.Or(f.Spec.OnFailedRollout, api.FailedRolloutNone)), string(cmp.Or(f.Spec.Rebalance, api.RebalanceNone)), age,
	}}
	return []metav1.TableRow{row}, columns, nil
}

func embed(object runtime.Object, include metav1.IncludeObjectPolicy) (runtime.RawExtension, error) {
	switch include {
	case metav1.IncludeNone:
		return runtime.RawExtension{}, nil
	case metav1.IncludeObject:
		return runtime.RawExtension{Object: object}, nil
	default:
		m, err := meta.Accessor(object)
		if err != nil {
			return runtime.RawExtension{}, err
		}
		partial := meta.AsPartialObjectMetadata(m)
		partial.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
		return runtime.RawExtension{Object: partial}, nil
	}
}
