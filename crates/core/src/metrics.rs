//! Streaming metrics in f64.
