//! Where a test makes a step of control fail: one point after each step, in the order of the steps. `docs/decisions/0040-failpoints-in-every-build.md`.
//!
//! Of each change of a MicroVM: `intent` before its intent is written, `recorded` after that and before the host is asked, `outcome` when the host has
//! answered and nothing says so yet, `written` when something does.

emberbox_failpoints::declare! {
    RUN_ADMITTED = "control.run.admitted";
    RUN_RECORDED = "control.run.recorded";
    LAUNCH_RECORDED = "control.launch.recorded";
    LAUNCH_OUTCOME = "control.launch.outcome";
    LAUNCH_WRITTEN = "control.launch.written";

    SUSPEND_INTENT = "control.suspend.intent";
    SUSPEND_RECORDED = "control.suspend.recorded";
    SUSPEND_OUTCOME = "control.suspend.outcome";
    SUSPEND_WRITTEN = "control.suspend.written";

    RESUME_INTENT = "control.resume.intent";
    RESUME_RECORDED = "control.resume.recorded";
    RESUME_OUTCOME = "control.resume.outcome";
    RESUME_WRITTEN = "control.resume.written";

    TERMINATE_INTENT = "control.terminate.intent";
    TERMINATE_RECORDED = "control.terminate.recorded";
    TERMINATE_OUTCOME = "control.terminate.outcome";
    TERMINATE_WRITTEN = "control.terminate.written";

    BUILD_PLACE = "control.build.place";
    BUILD_RECORDED = "control.build.recorded";
    BUILD_OUTCOME = "control.build.outcome";
    BUILD_WRITTEN = "control.build.written";
    DELETE_IMAGE_RECORDED = "control.delete_image.recorded";
    DELETE_IMAGE_FILES = "control.delete_image.files";
    DELETE_VERSION_RECORDED = "control.delete_version.recorded";
    DELETE_VERSION_FILES = "control.delete_version.files";
}
