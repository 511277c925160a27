//! Every reason for which ingress answers itself, and that answer. A refusal must never say more to a client than its credential allows.

use bytes::Bytes;
use emberbox_control::traffic::TrafficError;
use http_body_util::{Either, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use uuid::Uuid;

use crate::body::EndpointBody;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No credential, or none of the right form (observed).
    #[error("Request missing authentication")]
    MissingAuthentication,
    /// Forged, expired, another MicroVM's, another purpose's, or a host that is nobody's: one answer, so that it tells nothing (observed).
    #[error("Token authentication failed")]
    AuthenticationFailed,
    /// The token does not cover the port (observed).
    #[error("Access to port denied")]
    PortDenied,
    #[error("The target port must be a number from 1 to 65535, given once")]
    InvalidPort,
    #[error("The request must name one host")]
    InvalidHost,
    #[error("The host of the request is not the host of the TLS connection")]
    Misdirected,
    #[error("CONNECT is not supported by MicroVM endpoints")]
    ConnectMethod,
    #[error("HTTP/2 to the application (X-aws-proxy-force-h2) is not built yet")]
    ForceHttp2,
    #[error("shell is not built yet")]
    Shell,
    #[error("Nothing listens on port {0} of the MicroVM")]
    NothingListens(u16),
    #[error("The MicroVM is not running: {0}")]
    NotRunning(String),
    #[error("The MicroVM does not answer: {0}")]
    Unreachable(String),
    #[error("The application closed the connection without an answer")]
    NoAnswer,
    #[error("The application's answer is not valid HTTP/1.1")]
    InvalidAnswer,
    #[error("The application did not begin its answer in time")]
    AnswerTimeout,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::MissingAuthentication | Self::AuthenticationFailed | Self::PortDenied => StatusCode::FORBIDDEN,
            Self::InvalidPort | Self::InvalidHost => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::ConnectMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::ForceHttp2 | Self::Shell => StatusCode::NOT_IMPLEMENTED,
            Self::NothingListens(_) | Self::NotRunning(_) | Self::Unreachable(_) | Self::NoAnswer | Self::InvalidAnswer => {
                StatusCode::BAD_GATEWAY
            }
            Self::AnswerTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(crate) fn of_traffic(error: TrafficError, port: u16) -> Self {
        match error {
            TrafficError::Refused => Self::NothingListens(port),
            TrafficError::NotRunning(why) => Self::NotRunning(why),
            TrafficError::Unreachable(why) => Self::Unreachable(why),
        }
    }

    /// What the application's side of the HTTP exchange failed with.
    pub(crate) fn of_exchange(error: &hyper::Error) -> Self {
        if error.is_parse() { Self::InvalidAnswer } else { Self::NoAnswer }
    }

    /// `{"message": ...}` with a request id, as AWS answers.
    pub(crate) fn into_response(self, request_id: Uuid) -> Response<EndpointBody> {
        let body = serde_json::json!({ "message": self.to_string() }).to_string();
        let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
            response.headers_mut().insert("x-amzn-requestid", id);
        }
        response
    }
}
