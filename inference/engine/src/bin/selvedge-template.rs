//! Renders a chat template for the tests of this crate, as `selvedge render-template` does for a
//! node; with an argument it runs an ONNX model, as `selvedge run-onnx` does.

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1) {
        Some(_) => selvedge_engine::serve_onnx(),
        None => selvedge_engine::serve_templates(),
    }
}
