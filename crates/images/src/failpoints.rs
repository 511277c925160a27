//! Where a test makes a step of a build fail: one point after each step, in the order of the steps. `docs/decisions/0040-failpoints-in-every-build.md`.

emberbox_failpoints::declare! {
    BUILD_FETCH = "images.build.fetch";
    BUILD_UNPACK = "images.build.unpack";
    /// The root disk is there, and what it was made of is gone.
    BUILD_ROOT_DISK = "images.build.root_disk";
    BUILD_CAPTURE = "images.build.capture";
}
