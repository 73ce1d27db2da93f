//! The `selvedge` program.
//!
//! Owns nothing but the way from a command line to the module that carries it out, and the exit
//! codes: 0 done, 1 failed, 2 wrong usage. What can be typed is in `cli.rs`.

mod amount;
mod bridge;
mod brood;
mod cli;
mod client;
mod commands;
mod config;
mod demo;
mod home;
mod http;
mod logging;
mod pull;
mod record;
mod rest;
mod scratch;
mod telemetry;
mod ui;
mod unserved;
mod up;
mod variants;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};
use config::{Config, Env, RawConfig};
use home::Home;

/// Gives back what 2,000 streams took within seconds of their end; the system's allocator keeps all
/// of it, as something small lives on in each of its pages (docs/BENCHMARKS.md).
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // clap itself ends the program with 2 on wrong usage and 0 after help.
    let cli = Cli::parse();
    // The one TLS provider of the process; an error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Command::Completions { shell } = &cli.command {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "selvedge", &mut script);
        ui::out(String::from_utf8_lossy(&script).trim_end());
        return Ok(());
    }
    if let Command::RenderTemplate = &cli.command {
        return Ok(selvedge_engine::serve_templates()?);
    }
    if let Command::RunOnnx = &cli.command {
        return Ok(selvedge_engine::serve_onnx()?);
    }
    if let Command::Sim(command) = &cli.command {
        return commands::sim(command);
    }
    let home = Home::locate(cli.global.home.as_deref())?;
    let env: Env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    if let Command::Config(command) = &cli.command {
        return commands::config(&home, cli.global.config.as_deref(), &env, command);
    }
    let config = configured(cli, &home, &env)?;
    logging::start(&config, cli.global.verbose);
    match &cli.command {
        Command::Up(options) => serve(&home, &config, options),
        Command::Demo(options) => demo::demo(&home, &config, options, cli.global.verbose),
        Command::Ask(options) => commands::ask(&home, options),
        Command::Transcribe(options) => commands::transcribe(&home, options),
        Command::Infer(options) => commands::infer(&home, options),
        Command::Mesh(command) => commands::mesh(&home, &config, command),
        Command::Models(command) => interruptible(|| commands::models(&home, &config, command)),
        Command::Tenant(command) => commands::tenants(&home, command),
        Command::Key(command) => commands::keys(&home, command),
        Command::Budget(command) => commands::budgets(&home, command),
        Command::Provider(command) => commands::providers(&home, command),
        Command::Routes(command) => commands::routes(&home, command),
        Command::Cache(command) => commands::cache(&home, command),
        Command::Fed(command) => commands::fed(&home, &config, command),
        Command::Label(options) => commands::label(&home, options),
        Command::Explain(options) => commands::explain(&home, options),
        Command::Config(_)
        | Command::Completions { .. }
        | Command::Sim(_)
        | Command::RenderTemplate
        | Command::RunOnnx => Ok(()),
    }
}

fn configured(cli: &Cli, home: &Home, env: &Env) -> Result<Config> {
    let given = cli.global.config.as_deref();
    let file = given.map_or_else(|| home.config_file(), ToOwned::to_owned);
    config::load(&file, given.is_some(), env, |raw| {
        if let Command::Up(options) = &cli.command {
            apply(options, raw);
        }
    })
}

/// What the flags of `up` say, over everything else.
fn apply(options: &cli::Up, raw: &mut RawConfig) {
    if let Some(name) = &options.name {
        name.clone_into(&mut raw.node.name);
    }
    if let Some(api) = options.api {
        raw.api.listen = api.to_string();
    }
    if let Some(listen) = options.listen {
        raw.mesh.listen = listen.to_string();
    }
    raw.mesh.peers.extend(options.peer.iter().cloned());
    if let Some(rendezvous) = &options.rendezvous {
        raw.mesh.rendezvous = rendezvous.to_string_lossy().into_owned();
    }
    if options.no_mdns {
        raw.mesh.mdns = false;
    }
    if let Some(threads) = options.threads {
        raw.engine.threads = u64::from(threads);
    }
}

fn serve(home: &Home, config: &Config, options: &cli::Up) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(up::up(home, config, options));
    // Not dropped, which would wait for the thread that reads standard input, perhaps forever.
    runtime.shutdown_background();
    ended
}

/// Runs blocking work that may have child processes; a signal ends those first.
fn interruptible(work: impl FnOnce() -> Result<()>) -> Result<()> {
    brood::end_with_signals()?;
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_up_reach_the_configuration() {
        let line = "selvedge up --name n --api 127.0.0.1:1 --listen 127.0.0.1:2 --peer 127.0.0.1:3 \
                    --rendezvous /r --no-mdns --threads 4";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("a good line");
        let Command::Up(options) = &cli.command else { panic!("not up") };
        let mut raw = RawConfig::default();
        apply(options, &mut raw);
        let config = Config::checked(&raw).expect("good values");
        assert_eq!((config.name.as_str(), config.engine.threads), ("n", 4));
        assert_eq!((config.api.listen.port(), config.mesh.listen.port()), (1, 2));
        assert_eq!(config.mesh.peers.len(), 1);
        assert_eq!(config.mesh.rendezvous.as_deref(), Some(std::path::Path::new("/r")));
        assert!(!config.mesh.mdns);
    }
}
