//! One request from its head to its answer: which service it is for, who signed it, what it asks.
//!
//! Routes on the signing name in the credential scope, and on the path when nothing is signed (ours). An operation that has begun runs to its end even
//! when its client hangs up, so that no operation is left halfway by a broken connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use emberbox_wire::audit::AuditLog;
use emberbox_wire::caller::Caller;
use emberbox_wire::error::{ApiError, ErrorCode};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, field, info_span};
use uuid::Uuid;

use crate::catalogue::{Catalogue, Found};
use crate::routing::query_pairs;
use crate::services::{ClientAddress, Credentials, Operations, QueryError, QueryService, ResponseBody, StreamingService};
use crate::sigv4::SigningKeys;
use crate::trace::{CallNote, Trace};
use crate::{decode, envelope, s3_names, sigv4, validate};

/// Largest body of the Lambda API, STS and IAM (documented for Lambda).
const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;
/// Longest URL of the Lambda API: fifty tag keys of the longest kind fit, percent-encoded.
const MAX_URL_BYTES: usize = 32 * 1024;
/// A body that has not arrived by then is not coming; 6 MiB pass in it at 200 KiB/s.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Front {
    pub(crate) region: String,
    pub(crate) catalogue: Catalogue,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) signing_keys: SigningKeys,
    pub(crate) operations: Arc<dyn Operations>,
    pub(crate) audit: Arc<dyn AuditLog>,
    pub(crate) sts: Option<Arc<dyn QueryService>>,
    pub(crate) iam: Option<Arc<dyn QueryService>>,
    pub(crate) s3: Option<Arc<dyn StreamingService>>,
    /// Operations under way.
    pub(crate) running: TaskTracker,
}

/// Who answers.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Health,
    Lambda,
    Sts,
    Iam,
    S3,
    Other(String),
}

/// One request on its way: where it came from, and what it cost to know who asks and whether they may.
struct Call<'a> {
    parts: &'a Parts,
    client: IpAddr,
    request_id: &'a str,
    authentication: Duration,
    trace: Trace,
}

impl Target {
    fn of(parts: &Parts) -> Self {
        match sigv4::parse::claimed_service(parts) {
            Some(service) => match service.as_str() {
                "lambda" => Self::Lambda,
                "sts" => Self::Sts,
                "iam" => Self::Iam,
                "s3" => Self::S3,
                _ => Self::Other(service),
            },
            None => Self::of_unsigned(parts),
        }
    }

    /// What a request without a readable signature was meant for, so that it is refused in the right envelope.
    fn of_unsigned(parts: &Parts) -> Self {
        let path = parts.uri.path();
        let names_action = query_pairs(parts.uri.query().unwrap_or_default()).iter().any(|(name, _)| name == "Action");
        let form = parts
            .headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        match path {
            "/health" if parts.method == Method::GET && !parts.headers.contains_key(http::header::AUTHORIZATION) => Self::Health,
            "/" if names_action || form => Self::Sts,
            _ if is_lambda_path(path) => Self::Lambda,
            _ => Self::S3,
        }
    }
}

/// `/2025-09-09/...`: the Lambda API's paths begin with a date, which no bucket name looks like by accident.
fn is_lambda_path(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default().as_bytes();
    first.len() == 10 && first.iter().enumerate().all(|(index, b)| if matches!(index, 4 | 7) { *b == b'-' } else { b.is_ascii_digit() })
}

impl Front {
    pub(crate) async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Response<ResponseBody> {
        let request_id = Uuid::new_v4().to_string();
        let started = Instant::now();
        let span = info_span!("request", request_id, operation = field::Empty, caller = field::Empty);
        let (mut response, authentication) = self.dispatch(request, client, &request_id).instrument(span.clone()).await;
        let (status, duration_ms) = (response.status().as_u16(), started.elapsed().as_millis() as u64);
        // Signature and policies together; S3 verifies its requests itself and is not measured here.
        let auth_us = authentication.as_micros() as u64;
        span.in_scope(|| tracing::info!(status, duration_ms, auth_us, "answered"));
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(envelope::REQUEST_ID, value);
        }
        response
    }

    async fn dispatch(&self, request: Request<Incoming>, client: IpAddr, request_id: &str) -> (Response<ResponseBody>, Duration) {
        let (parts, body) = request.into_parts();
        let target = Target::of(&parts);
        let trace = Trace::begin(&parts, client, request_id, &self.region, self.audit.clone());
        if let (Target::S3, Some(s3)) = (&target, &self.s3) {
            let mut response = s3_call(s3.as_ref(), Request::from_parts(parts, body), client, trace).await;
            if let Ok(value) = HeaderValue::from_str(request_id) {
                response.headers_mut().insert(envelope::S3_REQUEST_ID, value);
            }
            return (response, Duration::ZERO);
        }
        let mut call = Call { parts: &parts, client, request_id, authentication: Duration::ZERO, trace };
        let response = match target {
            Target::Health => {
                call.trace.forget();
                envelope::health()
            }
            Target::Sts => self.query(&mut call, body, "sts", self.sts.as_deref()).await,
            Target::Iam => self.query(&mut call, body, "iam", self.iam.as_deref()).await,
            Target::Lambda => match self.json(&mut call, body).await {
                Ok(response) => response,
                Err(error) => self.refuse(&mut call, &error),
            },
            Target::S3 | Target::Other(_) => match self.json(&mut call, body).await {
                Ok(response) => response,
                Err(error) => {
                    call.trace.failed(error.code.shape(), &error.message);
                    envelope::foreign_error(self.catalogue.main(), &error)
                }
            },
        };
        (response, call.authentication)
    }

    /// In the words of the operation that was meant, if one was.
    fn refuse(&self, call: &mut Call<'_>, error: &ApiError) -> Response<ResponseBody> {
        let found = self.catalogue.find(&call.parts.method, call.parts.uri.path());
        let (model, operation) = found.map_or((self.catalogue.main(), None), |found| (found.model, Some(found.route.operation)));
        call.trace.failed(envelope::spelled(operation, error.code), &error.message);
        envelope::error(model, operation, error)
    }

    async fn json(&self, call: &mut Call<'_>, body: Incoming) -> Result<Response<ResponseBody>, ApiError> {
        let (service, path) = (sigv4::parse::claimed_service(call.parts), call.parts.uri.path());
        call.trace.service(service.as_deref().unwrap_or("lambda"));
        if let Some(found) = self.catalogue.find(&call.parts.method, path) {
            call.trace.operation(&found.route.operation.name, found.route.operation.read_only);
        }
        if call.parts.uri.to_string().len() > MAX_URL_BYTES {
            return Err(ApiError::new(ErrorCode::RequestTooLarge, format!("The URL must be shorter than {MAX_URL_BYTES} bytes.")));
        }
        let body = read(body).await?;
        let (caller, scope) = self.authenticate(call, &body).await?;
        if scope.service != "lambda" {
            return Err(not_served(&scope.service));
        }
        if scope.region != self.region {
            let message =
                format!("Credential should be scoped to a valid region, not '{}'. This endpoint is '{}'.", scope.region, self.region);
            return Err(ApiError::new(ErrorCode::InvalidSignature, message));
        }
        self.lambda(call, &body, caller).await
    }

    async fn authenticate(&self, call: &mut Call<'_>, body: &[u8]) -> Result<(Caller, sigv4::Scope), ApiError> {
        let began = Instant::now();
        let verified = sigv4::verify(call.parts, body, self.credentials.as_ref(), &self.signing_keys, OffsetDateTime::now_utc()).await;
        call.authentication += began.elapsed();
        let (key, scope) = verified?;
        Span::current().record("caller", &key.caller.arn);
        call.trace.caller(&key.caller);
        Ok((Caller { source_ip: call.client, ..key.caller }, scope))
    }

    /// The event of a call that has begun belongs to its task: it is written down even when nobody waits for the answer any more.
    async fn lambda(&self, call: &mut Call<'_>, body: &[u8], caller: Caller) -> Result<Response<ResponseBody>, ApiError> {
        let path = call.parts.uri.path();
        let Found { model, route } =
            self.catalogue.find(&call.parts.method, path).ok_or_else(|| unknown_route(&call.parts.method, path))?;
        let operation = route.operation;
        Span::current().record("operation", &operation.name);
        let input = decode::input(model, &route, call.parts.uri.query().unwrap_or_default(), body)?;
        if let Some(shape) = operation.input {
            call.trace.input(model, shape, &input);
            validate::validate(model, shape, &input)?;
        }
        let began = Instant::now();
        let authorized = self.operations.authorize(&caller, &operation.name, &input).await;
        call.authentication += began.elapsed();
        authorized?;
        let (operations, name, mut trace) = (self.operations.clone(), operation.name.clone(), call.trace.take());
        let errors = operation.errors.clone();
        let work = async move {
            let answer = operations.call(caller, &name, input).await;
            match &answer {
                Ok(_) => trace.ended(),
                Err(error) => trace.failed(envelope::spelled_by(&errors, error.code), &error.message),
            }
            (answer, trace)
        };
        let (output, trace) = self.running.spawn(work.in_current_span()).await.map_err(|panic| {
            tracing::error!(%panic, "an operation panicked");
            ApiError::internal()
        })?;
        call.trace = trace;
        let output = output?;
        call.trace.succeeded(model, operation, &output);
        Ok(envelope::success(operation, output))
    }

    async fn query(&self, call: &mut Call<'_>, body: Incoming, name: &str, service: Option<&dyn QueryService>) -> Response<ResponseBody> {
        let answer = self.query_answer(call, body, name, service).await;
        match &answer {
            Ok(_) => call.trace.ended(),
            Err(error) => call.trace.failed(&error.code, &error.message),
        }
        let namespace = service.map_or("", |service| service.namespace());
        answer.map_or_else(|error| envelope::query_error(&error, namespace, call.request_id), envelope::query_success)
    }

    async fn query_answer(
        &self,
        call: &mut Call<'_>,
        body: Incoming,
        name: &str,
        service: Option<&dyn QueryService>,
    ) -> Result<String, QueryError> {
        call.trace.service(name);
        let body = read(body).await.map_err(envelope::in_query_words)?;
        let mut parameters: BTreeMap<String, String> = query_pairs(call.parts.uri.query().unwrap_or_default()).into_iter().collect();
        parameters.extend(query_pairs(&String::from_utf8_lossy(&body)));
        let action = parameters.get("Action").map_or("", String::as_str);
        call.trace.operation(action, ["Get", "List"].iter().any(|verb| action.starts_with(verb)));
        let (caller, _) = self.authenticate(call, &body).await.map_err(envelope::in_query_words)?;
        call.trace.parameters(&parameters);
        let service = service.ok_or_else(|| envelope::in_query_words(not_served(name)))?;
        Span::current().record("operation", format!("{name}:{action}"));
        service.call(&caller, &parameters, call.request_id).await
    }
}

/// S3 verifies and routes its requests itself; what it was asked is noted on the way, and how it ended is read off its answer.
async fn s3_call(s3: &dyn StreamingService, mut request: Request<Incoming>, client: IpAddr, mut trace: Trace) -> Response<ResponseBody> {
    Span::current().record("operation", "s3");
    trace.service("s3");
    let asked = s3_names::Asked::of(&request);
    trace.operation(asked.operation, asked.read_only());
    trace.asked(asked.parameters(), asked.resource());
    let note = CallNote::default();
    request.extensions_mut().insert(ClientAddress(client));
    request.extensions_mut().insert(note.clone());
    let response = s3.call(request).await;
    if let Some((caller, operation)) = note.get() {
        trace.caller(&caller);
        trace.operation(&operation, s3_names::read_only(&operation));
    }
    if response.status().as_u16() < 400 {
        trace.ended();
        return response;
    }
    let (response, code, message) = s3_names::error_of(response).await;
    trace.failed(&code, &message);
    response
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(ErrorCode::RequestTooLarge, format!("Request must be smaller than {MAX_BODY_BYTES} bytes.")))
        }
        Ok(Err(_)) | Err(_) => Err(ApiError::new(ErrorCode::Serialization, "The request body did not arrive whole.")),
    }
}

fn not_served(service: &str) -> ApiError {
    let message = format!(
        "This endpoint is Emberbox and does not serve '{service}'. It serves lambda (Lambda MicroVMs, 2025-09-09), s3, sts and iam; point the \
         endpoint URL of other services elsewhere."
    );
    ApiError::new(ErrorCode::NotImplemented, message)
}

fn unknown_route(method: &Method, path: &str) -> ApiError {
    let service = if path.starts_with("/2026-") { "Lambda Core" } else { "Lambda MicroVMs" };
    ApiError::new(ErrorCode::UnknownOperation, format!("No operation of {service} is {method} at this path."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(method: &str, uri: &str, headers: &[(&str, &str)]) -> Target {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Target::of(&request.body(()).unwrap().into_parts().0)
    }

    fn signed(service: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=00")
    }

    #[test]
    fn the_scope_decides_and_the_path_when_there_is_none() {
        for (service, expected) in [
            ("lambda", Target::Lambda),
            ("sts", Target::Sts),
            ("iam", Target::Iam),
            ("s3", Target::S3),
            ("logs", Target::Other("logs".into())),
        ] {
            let header = signed(service);
            assert_eq!(target("GET", "/health", &[("authorization", &header), ("x-amz-date", "20260101T000000Z")]), expected);
        }
        assert_eq!(
            target(
                "GET",
                "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20260101%2Fr%2Fs3%2Faws4_request&X-Amz-Date=d&X-Amz-Expires=1&X-Amz-SignedHeaders=host&X-Amz-Signature=0",
                &[]
            ),
            Target::S3
        );
        assert_eq!(target("GET", "/health", &[]), Target::Health);
        assert_eq!(target("POST", "/health", &[]), Target::S3);
        assert_eq!(target("GET", "/2025-09-09/microvms", &[]), Target::Lambda);
        assert_eq!(target("GET", "/2025-09-09/microvms", &[("authorization", "Basic x")]), Target::Lambda);
        assert_eq!(target("GET", "/?Action=GetCallerIdentity", &[]), Target::Sts);
        assert_eq!(target("POST", "/", &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]), Target::Sts);
        assert_eq!(target("GET", "/bucket/key", &[]), Target::S3);
    }
}
