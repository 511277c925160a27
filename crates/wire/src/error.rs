//! Errors as clients see them: a name of the service model, its HTTP status and its members.

use serde_json::{Map, Value};

/// The errors the service model declares, and the few that every AWS front end adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    AccessDenied,
    Conflict,
    /// Temporary credentials whose time is over.
    ExpiredToken,
    IncompleteSignature,
    InsufficientCapacity,
    InternalServer,
    InvalidClientTokenId,
    /// `lambda-core` says this of what the service, not a constraint, finds wrong (observed).
    InvalidParameterValue,
    InvalidSignature,
    MissingAuthenticationToken,
    NetworkConnectorLimitExceeded,
    RequestExpired,
    RequestTooLarge,
    ResourceNotFound,
    /// The body is not what the model says, before any constraint is looked at.
    Serialization,
    ServiceQuotaExceeded,
    Throttling,
    UnknownOperation,
    Validation,
    /// Emberbox does not do this (yet); the message says what and what to do instead.
    NotImplemented,
}

impl ErrorCode {
    /// What goes into `x-amzn-errortype`.
    pub fn shape(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::Conflict => "ConflictException",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::InsufficientCapacity => "InsufficientCapacityException",
            Self::InternalServer => "InternalServerException",
            Self::InvalidClientTokenId => "UnrecognizedClientException",
            Self::InvalidParameterValue => "InvalidParameterValueException",
            Self::InvalidSignature => "InvalidSignatureException",
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::NetworkConnectorLimitExceeded => "NetworkConnectorLimitExceededException",
            Self::RequestExpired => "InvalidSignatureException",
            Self::RequestTooLarge => "RequestTooLargeException",
            Self::Serialization => "SerializationException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::ServiceQuotaExceeded => "ServiceQuotaExceededException",
            Self::Throttling => "ThrottlingException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Validation => "ValidationException",
            Self::NotImplemented => "NotImplementedException",
        }
    }

    /// HTTP status, as the model declares it where it does.
    pub fn status(self) -> u16 {
        match self {
            Self::Validation
            | Self::IncompleteSignature
            | Self::InvalidParameterValue
            | Self::NetworkConnectorLimitExceeded
            | Self::Serialization => 400,
            Self::ServiceQuotaExceeded => 402,
            Self::AccessDenied
            | Self::ExpiredToken
            | Self::InvalidClientTokenId
            | Self::InvalidSignature
            | Self::MissingAuthenticationToken
            | Self::RequestExpired => 403,
            Self::ResourceNotFound | Self::UnknownOperation => 404,
            Self::Conflict => 409,
            Self::RequestTooLarge => 413,
            Self::Throttling => 429,
            Self::InternalServer | Self::InsufficientCapacity => 500,
            Self::NotImplemented => 501,
        }
    }
}

/// One error on its way to a client. `Display` is the message the client reads, so it never holds a secret or a cause from inside.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
    /// Members of the error's shape beside `message`, by their JSON name.
    pub members: Map<String, Value>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), members: Map::new() }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Validation, message)
    }

    pub fn not_found(message: impl Into<String>, resource_type: &str, resource_id: &str) -> Self {
        Self::new(ErrorCode::ResourceNotFound, message).about(resource_type, resource_id)
    }

    pub fn conflict(message: impl Into<String>, resource_type: &str, resource_id: &str) -> Self {
        Self::new(ErrorCode::Conflict, message).about(resource_type, resource_id)
    }

    /// The caller learns that it was our fault, the log learns why.
    pub fn internal() -> Self {
        Self::new(ErrorCode::InternalServer, "Internal server error. The daemon's log has the cause under this request id.")
    }

    fn about(mut self, resource_type: &str, resource_id: &str) -> Self {
        self.members.insert("resourceType".into(), resource_type.into());
        self.members.insert("resourceId".into(), resource_id.into());
        self
    }
}
