//! Metrics of one service, in Prometheus' text format.

use crate::{clock, trace};
use chrono::{DateTime, Utc};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};
use std::{
    fmt, fs,
    sync::{Arc, Mutex, PoisonError},
};

/// The registry of one service; every name begins with `mailfleet_`. Clones are the same registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// A registry with what the process tells about itself.
    pub fn new(service: &'static str) -> Self {
        let mut registry = Registry::with_prefix("mailfleet");
        let labels = vec![("service", service), ("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What runs", Info::new(labels));
        registry.register_collector(Box::new(Process { started: clock::now() }));
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Adds metrics.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything, as text.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string cannot fail; a collector that fails leaves its part out.
        if text::encode(&mut text, &registry).is_err() {
            tracing::warn!("cannot encode the metrics");
        }
        text
    }
}

/// What the kernel and the runtime know about this process, read at each scrape.
#[derive(Debug)]
struct Process {
    started: DateTime<Utc>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut counter = |name, help, value: f64| {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric_type(&metric))?)
        };
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "seconds of CPU time are far below 2^52")]
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        counter("process_cpu_seconds", "CPU time used, user and system", cpu_seconds)?;
        if let Some((taken, lost)) = trace::spans() {
            let mut counter = |name, help, value: u64| {
                let metric = ConstCounter::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric_type(&metric))?)
            };
            counter("trace_spans_exported", "Spans that the collector of traces has taken", taken)?;
            counter("trace_spans_lost", "Spans that the collector of traces did not take; growing, it is away", lost)?;
        }
        let mut gauge = |name, help, value: i64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric_type(&metric))?)
        };
        gauge("process_start_time_seconds", "When the process started, Unix time", self.started.timestamp())?;
        if let Some(bytes) = resident_bytes() {
            gauge("process_resident_memory_bytes", "Memory held; growing without end is a leak", bytes)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = i64::try_from(open.count().saturating_sub(1)).unwrap_or(i64::MAX);
            gauge("process_open_fds", "Open file descriptors; growing without end is a leak", open)?;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = i64::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(i64::MAX);
            gauge("runtime_tasks", "Tasks that have not ended; growing without end is a leak", tasks)?;
        }
        Ok(())
    }
}

fn metric_type(metric: &impl EncodeMetric) -> prometheus_client::metrics::MetricType {
    metric.metric_type()
}

/// `VmRSS` of `/proc/self/status`, which is in units of 1,024 bytes.
fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<i64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[tokio::test]
    async fn the_text_has_the_process_and_what_was_added() {
        let metrics = Metrics::new("test");
        let sent = Counter::<u64>::default();
        metrics.register(|registry| registry.register("sent", "Sent", sent.clone()));
        sent.inc_by(3);
        let text = metrics.encode();
        for expected in [
            "mailfleet_sent_total 3",
            "mailfleet_process_cpu_seconds_total ",
            "mailfleet_process_resident_memory_bytes ",
            "mailfleet_process_open_fds ",
            "mailfleet_runtime_tasks ",
            "mailfleet_build_info{service=\"test\"",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
