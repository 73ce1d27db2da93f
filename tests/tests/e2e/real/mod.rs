//! Scenarios with real processes. Everything in here is run one or two at a time: the tests share
//! the machine's cores with the models they start.

mod answers;
mod budgets;
mod cable;
mod cache;
mod cache_mesh;
mod continued;
mod deaths;
mod demo;
mod described;
mod embeddings;
mod federated;
mod frozen;
mod hostile;
mod inference;
mod joining;
mod keys;
mod learned;
mod learning;
mod lifecycle;
mod load;
mod local_embeddings;
mod membership;
mod namespaces;
mod npm;
mod openai;
mod overspend;
mod providers;
mod reclaimed;
mod resume;
mod shapes;
mod shared_routes;
mod surface;
mod telemetry;
mod templates;
mod weather;
