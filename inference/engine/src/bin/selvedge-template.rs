//! Renders a chat template for the tests of this crate, as `selvedge render-template` does for a
//! node.

fn main() -> std::io::Result<()> {
    selvedge_engine::serve_templates()
}
