//! Garbage, floods and lies on a node's two ports: it refuses them and goes on serving.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, ensure};
use selvedge_base::Dice;
use selvedge_tests::chat::{STORY, completion};
use selvedge_tests::{Asked, Client, Deadline, Node, Scenario, scenario};

/// Fixed, so that a failure can be repeated.
const SEED: u64 = 0x5e1_7ed9e;

#[test]
fn garbage_is_refused_and_the_node_serves_on() {
    scenario(|s| {
        let mesh = s.mesh(&[s.node("giver").with_model()?, s.node("asker")])?;
        let (giver, asker) = (&mesh[0], &mesh[1]);
        let client = asker.client();
        let undisturbed = answer(&client)?;

        s.step("an answer goes on while both QUIC ports get garbage");
        let mut running = Asked::stream(&client, completion(STORY, 24))?;
        running.until(2)?;
        for node in [giver, asker] {
            garbage_on_quic(node)?;
        }
        let heard = running.to_the_end()?.whole()?;
        ensure!(heard.text.starts_with(&undisturbed), "{heard:?}");

        garbage_on_http(s, &client)?;
        bodies(s, &client)?;

        s.step("a crowd of silent connections keeps nobody out");
        let silent: Result<Vec<_>> = (0..200).map(|_| client.connect()).collect();
        let silent = silent?;
        ensure!(client.get("/health")?.status == 200);
        drop(silent);

        s.step("both nodes still see each other and answer as before");
        s.meet(&mesh)?;
        ensure!(answer(&client)? == undisturbed);
        ensure!(answer(&giver.client())? == undisturbed);
        Ok(())
    });
}

fn answer(client: &Client) -> Result<String> {
    Ok(Asked::stream(client, completion(STORY, 8))?.to_the_end()?.whole()?.text)
}

/// Random bytes, bytes that look like QUIC, and the start of a real handshake cut short.
fn garbage_on_quic(node: &Node) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut dice = Dice::keyed(SEED, "garbage on QUIC");
    for round in 0..3_000_u32 {
        let mut packet = vec![0; 1 + dice.below(1_472) as usize];
        dice.fill(&mut packet);
        if round % 3 == 0 && packet.len() > 6 {
            // A long header of version 1: an Initial, a Handshake or a 0-RTT packet.
            packet[0] |= 0xc0;
            packet[1..5].copy_from_slice(&1_u32.to_be_bytes());
        } else if round % 3 == 1 {
            packet[0] = (packet[0] | 0x40) & 0x7f;
        }
        // A full socket buffer drops packets, which is fine here.
        let _ = socket.send_to(&packet, node.quic);
    }
    Ok(())
}

fn garbage_on_http(s: &Scenario, client: &Client) -> Result<()> {
    let mut dice = Dice::keyed(SEED, "garbage on HTTP");
    s.step("random bytes on the HTTP port");
    for length in [1, 10, 1_000, 100_000] {
        let mut bytes = vec![0; length];
        dice.fill(&mut bytes);
        let answer = client.raw(&bytes, Deadline::secs(20))?;
        ensure!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let many = "X-Many: 1\r\n".repeat(2_000);
    let many = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    let twice = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin/status HTTP/1.1\r\n\r\n";
    let bad_chunk = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
                     application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n";
    let no_host = "GET /v1/models HTTP/1.1\r\n\r\n";
    let named = [
        ("an endless path", long.as_str()),
        ("endless headers", many.as_str()),
        ("two lengths", twice),
        ("an absurd chunk", bad_chunk),
        ("no host", no_host),
    ];
    for (what, bytes) in named {
        s.step(&format!("{what} on the HTTP port"));
        let answer = client.raw(bytes.as_bytes(), Deadline::secs(20))?;
        let answer = String::from_utf8_lossy(&answer);
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        ensure!(refused, "{answer}");
        ensure!(!answer.contains("HTTP/1.1 200"), "{answer}");
    }
    Ok(())
}

fn bodies(s: &Scenario, client: &Client) -> Result<()> {
    s.step("a body of 10 MB");
    let body = vec![b'a'; 10_000_000];
    let reply = client.send("POST", "/v1/chat/completions", &body, Deadline::secs(30))?;
    reply.refused(413)?;
    s.step("a body that is announced as 10 MB and never comes");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
                application/json\r\nContent-Length: 10000000\r\n\r\n{";
    let answer = client.raw(head.as_bytes(), Deadline::secs(20))?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    s.step("a deeply nested document");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let reply = client.send("POST", "/v1/completions", deep.as_bytes(), Deadline::secs(20))?;
    reply.refused(400).context("deep nesting")?;
    s.step("text that is not UTF-8");
    let reply = client.send("POST", "/v1/completions", b"{\"a\": \"\xff\"}", Deadline::secs(20))?;
    reply.refused(400).context("not UTF-8")?;
    Ok(())
}
