//! A node's machine in the words of the admin API.

use selvedge_contract::{Card, Machine};
use selvedge_core::route::strain;

use crate::http::wire;

pub(super) fn told(machine: &Machine) -> wire::Machine {
    let (made, now) = (&machine.made, &machine.now);
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let gpu = |card: &Card| wire::Gpu { name: card.name.clone(), memory_bytes: card.memory };
    wire::Machine {
        os: text(&made.os),
        architecture: text(&made.architecture),
        processor: text(&made.processor),
        kernels: text(&made.kernels),
        features: made.features.clone(),
        physical_cores: made.physical_cores,
        logical_cores: made.logical_cores,
        usable_millicores: made.usable_millicores,
        memory_bytes: made.memory,
        memory_available_bytes: now.memory_available,
        memory_budget_bytes: None,
        gpus: made.cards.iter().map(gpu).collect(),
        temperature_decidegrees: now.temperature,
        headroom_decidegrees: now.headroom,
        has_battery: now.has_battery,
        battery_percent: now.battery_percent,
        on_battery: now.on_battery,
        spared: strain(now).map(|strain| strain.to_string()),
    }
}
