//! Any text as a policy: it compiles or is refused, and what has compiled decides, all without a panic.
//!
//! The input is a document and, on a last line of its own, the resource that is asked about.
#![no_main]

use emberbox_control::access::policy::{Actor, Context, Document, Request, decide, trusts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (text, resource) = text.rsplit_once('\n').unwrap_or((text, "*"));
    let mut context = Context::default();
    context.set("aws:username", resource);
    context.set("aws:sourceip", resource);
    if let Ok(document) = Document::identity(text) {
        let resources = [resource.to_owned()];
        let _ = decide([&document], &Request { action: "lambda:RunMicrovm", resources: &resources, context: &context });
    }
    if let Ok(document) = Document::trust(text) {
        let _ = trusts(&document, &Actor::Service("lambda.amazonaws.com"), "sts:AssumeRole", &context);
    }
});
