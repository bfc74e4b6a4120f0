package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// socketMetrics are those of WebSockets.
type socketMetrics struct {
	open            prometheus.Gauge
	messages, bytes *prometheus.CounterVec // by direction
	age             prometheus.Histogram
	resumed         prometheus.Counter
	closed          *prometheus.CounterVec // by code
}

func newSocketMetrics() socketMetrics {
	return socketMetrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "telexec_websockets", Help: "WebSockets open now.",
		}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "telexec_websocket_messages_total", Help: "Messages on WebSockets, by direction.",
		}, []string{"direction"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "telexec_websocket_bytes_total", Help: "Bytes of messages on WebSockets before compression, by direction.",
		}, []string{"direction"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "telexec_websocket_message_age_seconds",
			Help: "From when the service said a message to when it was written to the connection.",
			// From an isolated line to a tab that was left alone.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30},
		}),
		resumed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "telexec_websocket_resumed_total", Help: "Subscriptions that began behind the beginning, as after a loss of the connection.",
		}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "telexec_websocket_closed_total", Help: "WebSockets that were closed, by the code of RFC 6455.",
		}, []string{"code"}),
	}
}

func (s socketMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{s.open, s.messages, s.bytes, s.age, s.resumed, s.closed}
}

// SocketOpened counts a WebSocket as open, until SocketClosed.
func (m *Metrics) SocketOpened() { m.sockets.open.Inc() }

// SocketClosed tells by which code; 1006 is a connection that was lost. Codes of a
// client's own count together.
func (m *Metrics) SocketClosed(code int) {
	m.sockets.open.Dec()
	name := "other"
	if code >= 1000 && code < 1016 {
		name = strconv.Itoa(code)
	}
	m.sockets.closed.WithLabelValues(name).Inc()
}

// SocketSent counts a message, and how old it was when it was written.
func (m *Metrics) SocketSent(bytes int, age time.Duration) {
	m.sockets.messages.WithLabelValues("sent").Inc()
	m.sockets.bytes.WithLabelValues("sent").Add(float64(bytes))
	m.sockets.age.Observe(age.Seconds())
}

// SocketReceived counts a message of a client.
func (m *Metrics) SocketReceived(bytes int) {
	m.sockets.messages.WithLabelValues("received").Inc()
	m.sockets.bytes.WithLabelValues("received").Add(float64(bytes))
}

// SocketResumed counts a subscription that does not begin at the beginning.
func (m *Metrics) SocketResumed() { m.sockets.resumed.Inc() }
