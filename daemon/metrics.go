package daemon

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the daemon's own figures, all named shoal_*.
type metrics struct {
	registry *prometheus.Registry
	turns    prometheus.Histogram
	rules    prometheus.Histogram
}

var (
	descUnit = prometheus.NewDesc("shoal_unit_info",
		"Commits of a sync unit: the one in force and the newest one seen.", []string{"unit", "accepted", "tip"}, nil)
	descProblems = prometheus.NewDesc("shoal_unit_problems",
		"Mistakes that keep the newest commit of a sync unit from coming into force.", []string{"unit"}, nil)
	descWarnings = prometheus.NewDesc("shoal_unit_warnings",
		"Objects and fields of a sync unit that are accepted and not acted upon.", []string{"unit"}, nil)
	descReachable = prometheus.NewDesc("shoal_unit_repository_up",
		"Whether the repository of a sync unit answered the last time.", []string{"unit"}, nil)
	descChecked = prometheus.NewDesc("shoal_unit_checked_timestamp_seconds",
		"When the repository of a sync unit last answered.", []string{"unit"}, nil)
	descPods     = prometheus.NewDesc("shoal_pods", "Pods by phase.", []string{"node", "phase"}, nil)
	descReady    = prometheus.NewDesc("shoal_pods_ready", "Pods that serve.", []string{"node"}, nil)
	descPending  = prometheus.NewDesc("shoal_pods_pending", "Wanted pods that fit on no node.", nil, nil)
	descRestarts = prometheus.NewDesc("shoal_pod_restarts_total", "Restarts of the containers of a pod.", []string{"namespace", "pod", "uid"}, nil)
)

func newMetrics(view func() *view) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		turns: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_control_turn_seconds", Help: "Time of one turn of the control loop.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		rules: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_rules_apply_seconds", Help: "Time to work out and apply packet rules.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	m.registry.MustRegister(m.turns, m.rules, viewCollector{view},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// viewCollector reads its figures off the view when it is asked.
type viewCollector struct{ view func() *view }

func (c viewCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUnit, descProblems, descWarnings, descReachable, descChecked, descPods, descReady, descPending, descRestarts} {
		ch <- d
	}
}

func (c viewCollector) Collect(ch chan<- prometheus.Metric) {
	v := c.view()
	if v == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, u := range v.units {
		gauge(descUnit, 1, u.Unit, string(u.Accepted.Commit), string(u.Tip.Commit))
		problems, warnings := countProblems(u.Problems)
		gauge(descProblems, float64(problems), u.Unit)
		gauge(descWarnings, float64(warnings), u.Unit)
		up := 1.0
		if u.Error != "" {
			up = 0
		}
		gauge(descReachable, up, u.Unit)
		if !u.Checked.IsZero() {
			gauge(descChecked, float64(u.Checked.UnixMilli())/1000, u.Unit)
		}
	}
	for _, record := range v.board.Pods {
		phases, ready := map[string]int{}, 0
		for _, p := range record.Pods {
			phases[string(p.Phase)]++
			if p.Ready {
				ready++
			}
			ch <- prometheus.MustNewConstMetric(descRestarts, prometheus.CounterValue, float64(p.Restarts), p.Pod.Namespace, p.Pod.Name(), p.Pod.Instance)
		}
		for phase, n := range phases {
			gauge(descPods, float64(n), record.Node, phase)
		}
		gauge(descReady, float64(ready), record.Node)
	}
	gauge(descPending, float64(len(v.board.Assigned.Pending)))
}
