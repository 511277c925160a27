//! What ingress may ask of control: which MicroVM an endpoint belongs to, and a stream to it, woken if need be.

use async_trait::async_trait;
use emberbox_host::GuestStream;
use emberbox_wire::ids::MicrovmId;
use std::net::Ipv4Addr;

/// How a client named an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointName {
    /// By its own loopback address (no `ingress.domain` set).
    Address(Ipv4Addr),
    /// By the first label of its host name under `ingress.domain`.
    Label(String),
}

/// Why a request gets no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// Nothing listens on the port.
    #[error("nothing listens on the port")]
    Refused,
    /// Terminated, or suspended without auto-resume.
    #[error("the MicroVM does not run: {0}")]
    NotRunning(String),
    /// It should run and does not answer, or could not be woken.
    #[error("the MicroVM does not answer: {0}")]
    Unreachable(String),
}

#[async_trait]
pub trait Traffic: Send + Sync + 'static {
    /// The MicroVM of an endpoint, in whatever state; `None` for an endpoint that is nobody's.
    async fn locate(&self, endpoint: &EndpointName) -> Option<MicrovmId>;

    /// A stream to `port` on the guest's loopback. Waits while the MicroVM is PENDING or being resumed; wakes it when it is suspended and its idle
    /// policy says so.
    async fn connect(&self, microvm: MicrovmId, port: u16) -> Result<Box<dyn GuestStream>, TrafficError>;

    /// Inbound traffic began or went on: the idle clock starts anew. Called at the start and end of each request, and while one streams.
    fn touch(&self, microvm: MicrovmId);
}
