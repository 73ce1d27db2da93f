//! Frames on a QUIC stream.
//!
//! Owns framing, size limits and what dropping either half means. The layout of a frame is
//! `selvedge_base::codec`'s; what a frame says is its sender's.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use selvedge_base::codec::{self, CodecError, LENGTH_BYTES, MAX_FRAME};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{NetError, stream_code};

/// How much is taken from a stream at once. Memory grows with what arrived, not with what a
/// length field announces.
const CHUNK: usize = 64 << 10;

/// Held by both halves of a stream, so that a retiring connection knows it is still in use.
#[derive(Debug)]
pub(crate) struct InUse(Arc<AtomicUsize>);

impl InUse {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writing half of a stream.
///
/// Dropping it ends the stream in good order: the reader gets what was sent, then the end. When a
/// `send` was interrupted (its future dropped half-way) the stream is reset instead.
#[derive(Debug)]
pub struct FrameSender {
    stream: SendStream,
    limit: usize,
    /// The version both sides speak; until they agreed, the oldest.
    version: u8,
    torn: bool,
    _in_use: InUse,
}

/// The reading half of a stream.
///
/// Dropping it before the end tells the writer to stop, see [`FrameSender::stopped`].
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    limit: usize,
    arrived: BytesMut,
    _in_use: InUse,
}

impl FrameSender {
    pub(crate) fn new(stream: SendStream, limit: usize, in_use: InUse) -> Self {
        let limit = limit.min(MAX_FRAME);
        Self { stream, limit, version: codec::OLDEST_VERSION, torn: false, _in_use: in_use }
    }

    /// The same sender, writing in the version both sides agreed on.
    pub(crate) const fn speaking(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// The wire version of what is written here: what it does not have must not be sent.
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// Sends one frame that is known since version `since` only.
    ///
    /// # Errors
    /// [`CodecError::NotAgreed`] when the peer does not know it (nothing was sent), and as
    /// [`FrameSender::send`].
    pub async fn send_since<T: Serialize + ?Sized>(
        &mut self,
        since: u8,
        value: &T,
    ) -> Result<(), NetError> {
        if since > self.version {
            let error = CodecError::NotAgreed { needs: since, agreed: self.version };
            return Err(NetError::Codec(error));
        }
        self.send(value).await
    }

    /// Sends one frame; waits while the reader or the network is slower than the writer.
    ///
    /// Not to be dropped half-way if the stream is to go on: later sends then fail with
    /// [`NetError::Interrupted`].
    ///
    /// # Errors
    /// [`NetError::Codec`] for a value over the limit (nothing was sent, the stream goes on);
    /// [`NetError::Stopped`] when the reader left; [`NetError::Lost`] with the connection.
    pub async fn send<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NetError> {
        if self.torn {
            return Err(NetError::Interrupted);
        }
        let frame = Bytes::from(codec::encode_at(self.version, &value, self.limit)?);
        self.torn = true;
        self.stream.write_chunk(frame).await?;
        self.torn = false;
        Ok(())
    }

    /// Ends the stream: the reader sees the end after the last frame.
    pub fn finish(&mut self) {
        // Fails only when the stream has ended already.
        let _ended = self.stream.finish();
    }

    /// Streams with a higher number go first when the link is full. New streams have what
    /// [`crate::Link::open`] was told; accepted ones have 0.
    pub fn set_priority(&self, priority: i32) {
        // Fails only when the stream has ended already.
        let _ended = self.stream.set_priority(priority);
    }

    /// Gives up: what was not yet received is thrown away and the reader gets
    /// [`NetError::Reset`].
    pub fn reset(&mut self, code: u32) {
        // Fails only when the stream has ended already.
        let _ended = self.stream.reset(VarInt::from_u32(code));
    }

    /// Resolves when the reader no longer wants the stream: it dropped its half, or the
    /// connection is gone. After [`FrameSender::finish`] it also resolves when everything
    /// arrived. Independent of `self`, so that it can be awaited beside a `send`.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            // Every outcome means the same to a writer: nobody reads on.
            let _how = stopped.await;
        }
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        if self.torn {
            self.reset(stream_code::CANCELLED);
        }
    }
}

impl FrameReceiver {
    pub(crate) fn new(stream: RecvStream, limit: usize, in_use: InUse) -> Self {
        let limit = limit.min(MAX_FRAME);
        Self { stream, limit, arrived: BytesMut::new(), _in_use: in_use }
    }

    /// The next frame; `None` after the last one. May be dropped and called again: nothing is
    /// lost.
    ///
    /// # Errors
    /// [`NetError::Codec`] for a frame that is too large, of another version or malformed (the
    /// writer is told to stop: what follows cannot be trusted); [`NetError::Truncated`] when the
    /// stream ended inside a frame; [`NetError::Reset`] when the writer gave up;
    /// [`NetError::Lost`] with the connection.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NetError> {
        loop {
            if let Some(frame) = self.take_frame().inspect_err(|error| self.refuse(error))? {
                let value = codec::decode_body(&frame);
                return Ok(Some(value.inspect_err(|error| self.refuse(error))?));
            }
            match self.stream.read_chunk(CHUNK, true).await? {
                Some(chunk) => self.arrived.extend_from_slice(&chunk.bytes),
                None if self.arrived.is_empty() => return Ok(None),
                None => return Err(NetError::Truncated),
            }
        }
    }

    /// Waits until a frame has begun to come, or the stream ends; nothing of it is taken.
    ///
    /// # Errors
    /// As [`FrameReceiver::recv`], but for what is in the frame.
    pub async fn begun(&mut self) -> Result<(), NetError> {
        if self.arrived.is_empty()
            && let Some(chunk) = self.stream.read_chunk(CHUNK, true).await?
        {
            self.arrived.extend_from_slice(&chunk.bytes);
        }
        Ok(())
    }

    /// Tells the writer to stop, with a code of this node's choice.
    pub fn stop(&mut self, code: u32) {
        // Fails only when the stream has ended already.
        let _ended = self.stream.stop(VarInt::from_u32(code));
    }

    /// A whole frame's body, if it has arrived.
    fn take_frame(&mut self) -> Result<Option<BytesMut>, CodecError> {
        let Some(header) = self.arrived.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = codec::body_length(*header, self.limit)?;
        if self.arrived.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.arrived.advance(LENGTH_BYTES);
        Ok(Some(self.arrived.split_to(length)))
    }

    fn refuse(&mut self, error: &CodecError) {
        self.stop(match error {
            CodecError::TooLarge { .. } => stream_code::OVERSIZED,
            CodecError::Version(_)
            | CodecError::NotAgreed { .. }
            | CodecError::Format(_)
            | CodecError::Malformed(_)
            | CodecError::Trailing(_) => stream_code::MALFORMED,
        });
    }
}
