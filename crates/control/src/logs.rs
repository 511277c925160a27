//! Where the output of builds goes.

use emberbox_host::{Output, OutputSink};
use emberbox_store::UnixMillis;
use emberbox_wire::ids::{AccountId, BuildId, ImageVersion};
use emberbox_wire::microvms::Logging;
use std::sync::Arc;

use crate::clock::Clock;

/// One line for a log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub account: AccountId,
    pub group: String,
    pub stream: String,
    pub at: UnixMillis,
    pub line: String,
}

/// Keeps log lines. Called from the middle of a build: it must not block for long.
pub trait LogSink: Send + Sync + 'static {
    fn write(&self, entry: LogEntry);
}

/// A log group and stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogDestination {
    pub(crate) group: String,
    pub(crate) stream: String,
}

/// `/aws/lambda-microvms/<image-name>` unless `logging` says otherwise (documented); `None` when it says none. The stream of a build is ours.
pub(crate) fn build_log(image_name: &str, version: ImageVersion, build: &BuildId, logging: Option<&Logging>) -> Option<LogDestination> {
    let (group, stream) = match logging {
        Some(Logging::Disabled {}) => return None,
        Some(Logging::CloudWatch(settings)) => (settings.log_group.clone(), settings.log_stream.clone()),
        None => (None, None),
    };
    Some(LogDestination {
        group: group.unwrap_or_else(|| format!("/aws/lambda-microvms/{image_name}")),
        stream: stream.unwrap_or_else(|| format!("build/{version}/{build}")),
    })
}

/// A sink for the host that names each line's place.
pub(crate) fn output_sink(logs: Arc<dyn LogSink>, clock: Arc<dyn Clock>, account: AccountId, to: Option<LogDestination>) -> OutputSink {
    Arc::new(move |output| {
        let Some(to) = &to else { return };
        let line = match output {
            Output::Step(step) => format!("[emberbox] {step}"),
            Output::Line(line) => line,
        };
        logs.write(LogEntry { account: account.clone(), group: to.group.clone(), stream: to.stream.clone(), at: clock.now(), line });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use emberbox_wire::microvms::CloudWatchLogging;

    #[test]
    fn a_build_logs_where_the_image_says() {
        let build = BuildId("build-1".into());
        let of = |logging: Option<&Logging>| build_log("web", ImageVersion::FIRST, &build, logging).map(|to| (to.group, to.stream));
        assert_eq!(of(None), Some(("/aws/lambda-microvms/web".into(), "build/1.0/build-1".into())));
        assert_eq!(of(Some(&Logging::Disabled {})), None);
        let named = Logging::CloudWatch(CloudWatchLogging { log_group: Some("g".into()), log_stream: None });
        assert_eq!(of(Some(&named)), Some(("g".into(), "build/1.0/build-1".into())));
    }
}
