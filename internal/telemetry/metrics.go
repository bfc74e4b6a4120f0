package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Gauges are the numbers that are read when somebody asks, rather than counted.
// The functions are called from the goroutine of a scrape and must be quick; a
// nil one leaves its metric out.
type Gauges struct {
	Running        func() int // commands running
	Queued         func() int // commands waiting for a slot
	Watchers       func() int // readers of live output
	EventWatchers  func() int // readers of what happens to all commands
	Sessions       func() int // sessions that have not ended
	Viewers        func() int // who is attached to them
	Tasks          func() int // tasks that have begun and not ended
	TasksQueued    func() int // tasks waiting for their turn
	SSHConnections func() int // open connections to hosts
}

// Metrics holds the metrics of one service. All methods may be called from any
// goroutine.
type Metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
	inFlight prometheus.Gauge
	ended    *prometheus.CounterVec
	ran      prometheus.Histogram
	output   prometheus.Counter
	terminal prometheus.Counter
	sockets  socketMetrics
}

// NewMetrics makes the metrics, with those of the Go runtime and of the process,
// and a constant telexec_build_info{version}.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "telexec_request_duration_seconds",
			Help: "Duration of API calls by method and gRPC code; streams count from open to close.",
			// From a status read (below 1 ms) to a wait of half a minute.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"method", "code"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "telexec_requests_in_flight", Help: "API calls being answered now.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "telexec_commands_ended_total", Help: "Commands that have ended, by state.",
		}, []string{"state"}),
		ran: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "telexec_command_duration_seconds",
			Help:    "How long commands ran, from their start on the host to their end.",
			Buckets: prometheus.ExponentialBuckets(.01, 4, 10),
		}),
		output: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "telexec_command_output_bytes_total", Help: "Output received from hosts.",
		}),
		terminal: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "telexec_terminal_output_bytes_total", Help: "Output received from the terminals of sessions.",
		}),
	}
	m.sockets = newSocketMetrics()
	m.registry.MustRegister(m.sockets.all()...)
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "telexec_build_info", Help: "Always 1; the label tells the version.",
		ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 })
	m.registry.MustRegister(m.calls, m.inFlight, m.ended, m.ran, m.output, m.terminal, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observe adds the gauges. It is called once.
func (m *Metrics) Observe(g Gauges) {
	for _, v := range []struct {
		name, help string
		read       func() int
	}{
		{"telexec_commands_running", "Commands running now.", g.Running},
		{"telexec_commands_queued", "Commands waiting for a slot now.", g.Queued},
		{"telexec_watchers", "Readers of live output connected now.", g.Watchers},
		{"telexec_event_watchers", "Readers of what happens to all commands connected now.", g.EventWatchers},
		{"telexec_sessions", "Sessions that have not ended.", g.Sessions},
		{"telexec_session_viewers", "Viewers attached to sessions now.", g.Viewers},
		{"telexec_tasks_running", "Tasks that have begun and not ended, also those that wait for people or are undone.", g.Tasks},
		{"telexec_tasks_queued", "Tasks waiting for their turn now.", g.TasksQueued},
		{"telexec_ssh_connections", "SSH connections open now.", g.SSHConnections},
	} {
		if v.read == nil {
			continue
		}
		m.registry.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: v.name, Help: v.help},
			func() float64 { return float64(v.read()) }))
	}
}

// CallStarted counts a call as in flight, until Call.
func (m *Metrics) CallStarted() { m.inFlight.Inc() }

// Call counts an answered call: full gRPC method name, code name, duration.
func (m *Metrics) Call(method, code string, took time.Duration) {
	m.inFlight.Dec()
	m.calls.WithLabelValues(method, code).Observe(took.Seconds())
}

// CommandEnded counts a command that ended in a state; ran is 0 for one that
// never started, and is then not counted as a duration.
func (m *Metrics) CommandEnded(state string, ran time.Duration) {
	m.ended.WithLabelValues(state).Inc()
	if ran > 0 {
		m.ran.Observe(ran.Seconds())
	}
}

// Output counts bytes of output received.
func (m *Metrics) Output(bytes int) { m.output.Add(float64(bytes)) }

// TerminalOutput counts bytes of output received from the terminal of a session.
func (m *Metrics) TerminalOutput(bytes int) { m.terminal.Add(float64(bytes)) }

// Handler serves the metrics in the Prometheus text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
