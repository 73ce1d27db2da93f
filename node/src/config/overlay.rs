//! Laying the sources of configuration over each other.
//!
//! Owns precedence: defaults < file < environment < flags. Reads the file; the environment is
//! handed in, so that tests need not change the process's own.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use super::check::Config;
use super::raw::RawConfig;
use super::reference::{Field, fields};

/// Environment variables that matter here.
pub(crate) type Env = BTreeMap<String, String>;

/// The largest configuration file read: hundreds of times the commented default one.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads and checks the configuration. `file` is read when it exists; `required` says that the
/// person named it, so that a missing one is an error. `flags` writes what the command line says.
pub(crate) fn load(
    file: &Path,
    required: bool,
    env: &Env,
    flags: impl FnOnce(&mut RawConfig),
) -> Result<Config> {
    let mut table = read_file(file, required)?;
    overlay_env(&mut table, env)?;
    let mut raw: RawConfig = Value::Table(table).try_into().with_context(|| {
        format!("the environment does not fit the configuration in {}", file.display())
    })?;
    flags(&mut raw);
    Ok(Config::checked(&raw)?)
}

fn read_file(file: &Path, required: bool) -> Result<Table> {
    let size = match std::fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(Table::new());
        }
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "cannot read {}; `selvedge config defaults > {}` makes one",
                    file.display(),
                    file.display()
                )
            });
        }
    };
    if size > MAX_FILE_BYTES {
        bail!("{} has {size} bytes; a configuration has at most {MAX_FILE_BYTES}", file.display());
    }
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {} as text", file.display()))?;
    // Once into the real type, whose errors point at line and column, and once as a table that
    // the environment can be laid over.
    toml::from_str::<RawConfig>(&text)
        .with_context(|| format!("{} is not a valid configuration", file.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not TOML", file.display()))
}

fn overlay_env(table: &mut Table, env: &Env) -> Result<()> {
    let fields = fields();
    refuse_unknown(&fields, env)?;
    for field in &fields {
        if let Some(text) = env.get(&field.variable()).or_else(|| foreign(field, env)) {
            let value = parse(field, text)?;
            let section =
                table.entry(field.section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(field.name.clone(), value);
            }
        }
    }
    Ok(())
}

/// Variables of other programs that mean the same thing.
fn foreign<'a>(field: &Field, env: &'a Env) -> Option<&'a String> {
    let name = match field.path().as_str() {
        "models.hub" => "HF_ENDPOINT",
        "models.hub_token" => "HF_TOKEN",
        "telemetry.endpoint" => "OTEL_EXPORTER_OTLP_ENDPOINT",
        "telemetry.disabled" => "OTEL_SDK_DISABLED",
        "telemetry.protocol" => "OTEL_EXPORTER_OTLP_PROTOCOL",
        "telemetry.headers" => "OTEL_EXPORTER_OTLP_HEADERS",
        "telemetry.certificate" => "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "telemetry.sampler" => "OTEL_TRACES_SAMPLER",
        "telemetry.sampler_arg" => "OTEL_TRACES_SAMPLER_ARG",
        "telemetry.service_name" => "OTEL_SERVICE_NAME",
        "telemetry.resource_attributes" => "OTEL_RESOURCE_ATTRIBUTES",
        "telemetry.timeout_ms" => "OTEL_EXPORTER_OTLP_TIMEOUT",
        "telemetry.delay_ms" => "OTEL_BSP_SCHEDULE_DELAY",
        "telemetry.metric_interval_ms" => "OTEL_METRIC_EXPORT_INTERVAL",
        _ => return None,
    };
    env.get(name).filter(|text| !text.is_empty())
}

/// A misspelt variable would be ignored silently: refuse the ones that look like ours.
fn refuse_unknown(fields: &[Field], env: &Env) -> Result<()> {
    for name in env.keys() {
        let ours = fields
            .iter()
            .any(|field| name.starts_with(&format!("SELVEDGE_{}_", field.section.to_uppercase())));
        if ours && !fields.iter().any(|field| field.variable() == *name) {
            bail!(
                "the environment variable {name} sets no field of the configuration; \
                 `selvedge config defaults` lists the names"
            );
        }
    }
    Ok(())
}

fn parse(field: &Field, text: &str) -> Result<Value> {
    let wrong = |expected: &str| {
        format!("{}='{text}' does not fit {}: expected {expected}", field.variable(), field.path())
    };
    Ok(match &field.default {
        Value::Integer(_) => {
            let number: i64 = text.trim().parse().with_context(|| wrong("a whole number"))?;
            Value::Integer(number)
        }
        Value::Boolean(_) => Value::Boolean(match text.trim() {
            "1" | "true" | "yes" | "on" => true,
            "0" | "false" | "no" | "off" => false,
            _ => bail!(wrong("true or false")),
        }),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        Value::String(_) | Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            Value::String(text.to_owned())
        }
    })
}
