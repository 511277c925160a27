//! Where a test makes a step of this host fail: one point after each step, in the order of the steps. `docs/decisions/0040-failpoints-in-every-build.md`.

emberbox_failpoints::declare! {
    LAUNCH_MANIFEST = "host.launch.manifest";
    LAUNCH_DISK = "host.launch.disk";
    LAUNCH_GUEST = "host.launch.guest";
    LAUNCH_RECORD = "host.launch.record";

    /// Of a launch and of a resume.
    RESTORE_CELL = "host.restore.cell";
    RESTORE_START = "host.restore.start";
    RESTORE_PROCESS = "host.restore.process";
    RESTORE_STATE = "host.restore.state";

    SUSPEND_HOOK = "host.suspend.hook";
    SUSPEND_FREEZE = "host.suspend.freeze";
    SUSPEND_PAUSE = "host.suspend.pause";
    SUSPEND_FILES = "host.suspend.files";
    SUSPEND_MEMORY_AND_STATE = "host.suspend.memory_and_state";
    SUSPEND_SYNC = "host.suspend.sync";
    /// The snapshot has its name.
    SUSPEND_COMMIT = "host.suspend.commit";
    SUSPEND_PROCESS_END = "host.suspend.process_end";
    SUSPEND_TIDY = "host.suspend.tidy";

    RESUME_MANIFEST = "host.resume.manifest";
    RESUME_SNAPSHOT = "host.resume.snapshot";
    /// The snapshot is used up.
    RESUME_USED = "host.resume.used";
    RESUME_GUEST = "host.resume.guest";
    RESUME_HOOK = "host.resume.hook";

    STOP_HOOK = "host.stop.hook";
    STOP_PROCESS_END = "host.stop.process_end";
    STOP_FILES = "host.stop.files";

    /// Adoption at start, once for each machine.
    ADOPT_RECORD = "host.adopt.record";
    ADOPT_PROCESS = "host.adopt.process";

    BUILD_PREPARE = "host.build.prepare";
    BUILD_BOOT = "host.build.boot";
    BUILD_SCRIPT = "host.build.script";
    BUILD_END = "host.build.end";

    CAPTURE_PREPARE = "host.capture.prepare";
    CAPTURE_BOOT = "host.capture.boot";
    CAPTURE_START_APPLICATION = "host.capture.start_application";
    CAPTURE_READY = "host.capture.ready";
    CAPTURE_FREEZE = "host.capture.freeze";
    CAPTURE_SAVE = "host.capture.save";
    CAPTURE_FINISH = "host.capture.finish";
    /// The machine that `/validate` is asked of has files, then a process.
    CAPTURE_TEST_FILES = "host.capture.test_files";
    CAPTURE_TEST_START = "host.capture.test_start";
    CAPTURE_WORKING_SET = "host.capture.working_set";
    CAPTURE_VALIDATE = "host.capture.validate";

    /// An image's files were read because it was not known that they are whole.
    VERIFY_IMAGE = "host.verify.image";
    /// Compressed memory of a suspended machine was unpacked.
    UNPACK_MEMORY = "host.unpack.memory";

    /// Where no launch finds them.
    DELETE_IMAGE_ASIDE = "host.delete_image.aside";
    DELETE_IMAGE_FILES = "host.delete_image.files";
}
