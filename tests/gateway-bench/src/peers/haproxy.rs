//! HAProxy: key check by a map file, a rate for each key in a stick table, its own credential
//! upstream, a line for each request to standard output. It caches no POST.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::{Gateway, Setup, keys, start_with, write};
use crate::answers::UPSTREAM_KEY;
use crate::mock::BACKLOG;

pub(super) fn start(program: &Path, setup: &Setup) -> Result<Gateway> {
    let mut map = String::new();
    for key in keys() {
        // Blanks end the first column of a map.
        writeln!(map, "{key} 1")?;
    }
    let map = write(setup, "keys.map", &map)?;
    let (listen, upstream) = (setup.listen, setup.upstream);
    // Bodies of 16 KiB with their heads fit one buffer of 32 KiB. Without `http-no-delay` the first
    // byte of a slow stream waits for a tenth of a second.
    let config = format!(
        "global
  maxconn 6000
  nbthread 1
  tune.bufsize 32768
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
frontend keys
  bind {listen} backlog {BACKLOG}
  stick-table type string len 80 size 10k expire 60s store http_req_rate(1s)
  http-request set-var(txn.key) req.hdr(authorization),word(2,' ')
  http-request deny deny_status 401 unless {{ var(txn.key),map({map}) -m found }}
  http-request track-sc0 var(txn.key)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
  http-request set-header Authorization \"Bearer {UPSTREAM_KEY}\"
  default_backend mock
backend mock
  server mock {upstream} pool-max-conn 4096
"
    );
    let config = write(setup, "haproxy.cfg", &config)?;
    let process = start_with(program, setup, &["-db", "-f", &config])?;
    Ok(Gateway::plain(process, setup))
}
