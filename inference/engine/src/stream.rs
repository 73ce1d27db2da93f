//! Tokens to text while they arrive.
//!
//! Owns what may be shown already: whole UTF-8 characters, and nothing that could still turn out
//! to be the beginning of a stop string. The state after `n` tokens is a function of those tokens
//! alone, so another node that replays them continues the text exactly.

/// The text side of one answer.
#[derive(Clone, Debug)]
pub(crate) struct TextStream {
    stops: Vec<String>,
    /// Bytes at the end that may become a character.
    partial: Vec<u8>,
    /// Text at the end that may become a stop string.
    held: String,
    stopped: bool,
}

impl TextStream {
    /// A stream that ends at the first of `stops`.
    pub(crate) fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, partial: Vec::new(), held: String::new(), stopped: false }
    }

    /// Takes a token's bytes; returns the text that became certain. Nothing follows a stop.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.partial.extend_from_slice(bytes);
        self.decode();
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.stopped = true;
            self.partial.clear();
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let certain = self.held.len() - self.uncertain();
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was met.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// The text held back until now; an unfinished character becomes U+FFFD.
    pub(crate) fn finish(mut self) -> String {
        if !self.partial.is_empty() {
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        self.held
    }

    /// Moves whole characters from `partial` to `held`. Bytes that can never be a character become
    /// U+FFFD, one per maximal part as Unicode recommends (and `from_utf8_lossy` does).
    fn decode(&mut self) {
        let mut bytes = std::mem::take(&mut self.partial);
        let mut from = 0;
        while let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty()) {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    from = bytes.len();
                }
                Err(error) => {
                    let (valid, _) = rest.split_at(error.valid_up_to());
                    self.held.push_str(&String::from_utf8_lossy(valid));
                    from += valid.len();
                    let Some(length) = error.error_len() else { break };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    from += length;
                }
            }
        }
        self.partial = bytes.split_off(from);
    }

    /// Bytes at the end of `held` that begin a stop string.
    fn uncertain(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| {
                stop.char_indices()
                    .map(|(at, _)| at)
                    .filter(|&length| length > 0 && self.held.ends_with(&stop[..length]))
            })
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "stream_tests.rs"]
mod tests;
