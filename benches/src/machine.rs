//! What the figures were measured on.

use chrono::Utc;
use serde::{Deserialize, Serialize};

/// A machine and a day.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    pub cores: usize,
    /// Memory in GiB.
    pub memory: u64,
    /// Kernel and its version.
    pub kernel: String,
    /// Day of the measurement, UTC.
    pub date: String,
    /// Build of the measured programs.
    pub build: String,
}

impl Machine {
    /// This machine, today.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kibibytes = memory.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory: kibibytes.map_or(0, |kibibytes| kibibytes.div_ceil(1 << 20)),
            kernel: format!("{} {}", read("/proc/sys/kernel/ostype").trim(), read("/proc/sys/kernel/osrelease").trim()),
            date: Utc::now().format("%Y-%m-%d").to_string(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }
}
