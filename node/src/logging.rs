//! The log, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Starts writing the log; `verbose` counts the `-v` given.
pub(crate) fn start(config: &Config, verbose: u8) {
    let filter = match verbose {
        0 => config.log_filter.as_str(),
        1 => "info",
        2 => "info,selvedge=debug,selvedge_runtime=debug,selvedge_net=debug,selvedge_engine=debug",
        _ => "debug",
    };
    let lines = tracing_subscriber::fmt()
        // libp2p reports every query it could not send as an error; a pulled cable is none.
        // Symphonia does so of files that callers damaged, who are told.
        .with_env_filter(EnvFilter::new(format!("libp2p_mdns=off,symphonia=off,{filter}")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && crate::ui::fancy_stderr());
    match config.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}
