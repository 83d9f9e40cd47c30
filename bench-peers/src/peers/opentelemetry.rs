//! OpenTelemetry: log records through the bridges for `tracing` and `log`, spans through `tracing-opentelemetry`,
//! each with the SDK's batch processor and an exporter that forgets.
//!
//! Span fields are copied onto log records by the bridge's own option; the span's name is not. The attributes that
//! `tracing-opentelemetry` adds and nobody else sends (source location, thread) are switched off.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_log::OpenTelemetryLogBridge;
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{self, BatchLogProcessor, LogBatch, LogExporter, SdkLoggerProvider};
use opentelemetry_sdk::trace::{self, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use super::{log_calls, queue_length, tracing_calls, Arrived, Running};
use crate::workload::Workload;

/// The batch processors' own batch size.
const BATCH: usize = 512;

/// Sets it up for a workload.
pub fn start(workload: Workload) -> Option<Running> {
    let arrived = Arrived::default();
    if workload == Workload::Span {
        return start_spans(&arrived);
    }
    let config = logs::BatchConfigBuilder::default()
        .with_max_queue_size(queue_length())
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(Duration::from_secs(1))
        .build();
    let processor = BatchLogProcessor::builder(Forget(arrived.clone())).with_batch_config(config).build();
    let provider = SdkLoggerProvider::builder().with_log_processor(processor).build();
    let calls = if workload == Workload::Log {
        let bridge = OpenTelemetryLogBridge::new(&provider);
        log::set_boxed_logger(Box::new(bridge)).expect("the only logger of this process");
        log::set_max_level(log::LevelFilter::Info);
        log_calls::calls(workload)?
    } else {
        let mut bridge = OpenTelemetryTracingBridge::builder(&provider);
        if workload == Workload::EventInSpans {
            bridge = bridge.with_tracing_span_attributes(TracingSpanAttributes::all());
        }
        tracing_calls::install(tracing_subscriber::registry().with(LevelFilter::INFO).with(bridge.build()));
        tracing_calls::calls(workload)?
    };
    Some(arrived.running_with_flush(calls, move || drop(provider.force_flush())))
}

fn start_spans(arrived: &Arrived) -> Option<Running> {
    let config = trace::BatchConfigBuilder::default()
        .with_max_queue_size(queue_length())
        .with_max_export_batch_size(BATCH)
        .build();
    let processor = BatchSpanProcessor::builder(Forget(arrived.clone())).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("bench"))
        .with_location(false)
        .with_threads(false);
    tracing_calls::install(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer));
    let calls = tracing_calls::calls(Workload::Span)?;
    Some(arrived.running_with_flush(calls, move || drop(provider.force_flush())))
}

/// An exporter that counts and forgets.
#[derive(Debug)]
struct Forget(Arrived);

impl LogExporter for Forget {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.0.add(batch.iter().count());
        Ok(())
    }
}

impl SpanExporter for Forget {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.add(batch.len());
        Ok(())
    }
}
