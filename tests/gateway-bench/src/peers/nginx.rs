//! nginx: key check by `map`, a limit for each key, its own credential upstream, a JSON access log;
//! `proxy_cache` for hits.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::{Gateway, Setup, keys, start_with, write};
use crate::answers::UPSTREAM_KEY;
use crate::mock::BACKLOG;
use crate::scenario::Scenario;

pub(super) fn start(program: &Path, setup: &Setup, scenario: Scenario) -> Result<Gateway> {
    let mut map = String::new();
    for key in keys() {
        writeln!(map, "\"Bearer {key}\" 1;")?;
    }
    write(setup, "keys.map", &map)?;
    let config = write(setup, "nginx.conf", &config(setup, scenario == Scenario::Cached))?;
    let dir = setup.dir.display().to_string();
    // The built-in path of the first log is not ours to write to.
    let process = start_with(
        program,
        setup,
        &["-p", &dir, "-c", &config, "-e", "stderr", "-g", "daemon off;"],
    )?;
    Ok(Gateway::plain(process, setup))
}

fn config(setup: &Setup, cache: bool) -> String {
    let (listen, upstream) = (setup.listen, setup.upstream);
    let (zone, use_zone) = if cache {
        (
            "proxy_cache_path cache keys_zone=answers:10m max_size=64m;",
            "proxy_cache answers; proxy_cache_methods POST; proxy_cache_valid 200 1h;\n      \
             proxy_cache_key \"$http_authorization$uri$request_body\";",
        )
    } else {
        ("", "proxy_buffering off;")
    };
    format!(
        r#"worker_processes 1;
user root;
pid nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  map_hash_max_size 8192;
  map_hash_bucket_size 128;
  map $http_authorization $known {{ default 0; include keys.map; }}
  limit_req_zone $http_authorization zone=keys:10m rate=1000000r/s;
  log_format requests escape=json '{{"at":"$msec","key":"$http_authorization","uri":"$uri",'
    '"status":$status,"bytes":$bytes_sent,"seconds":$request_time,"upstream":"$upstream_addr"}}';
  access_log access.log requests buffer=64k flush=1s;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_body_buffer_size 64k;
  client_max_body_size 4m;
  # Bodies of 16 KiB with their heads in one read.
  proxy_buffer_size 32k;
  proxy_buffers 8 32k;
  proxy_busy_buffers_size 64k;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  tcp_nodelay on;
  {zone}
  upstream mock {{
    server {upstream};
    keepalive 4096;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
  }}
  server {{
    listen {listen} backlog={BACKLOG};
    location / {{
      if ($known = 0) {{ return 401; }}
      limit_req zone=keys burst=100000 nodelay;
      {use_zone}
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {UPSTREAM_KEY}";
      proxy_pass http://mock;
    }}
  }}
}}
"#
    )
}
