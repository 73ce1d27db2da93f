use super::*;
use selvedge_contract::ModelCard;

const ME: NodeId = NodeId([1; 32]);
const PEER: NodeId = NodeId([2; 32]);
const FAR: NodeId = NodeId([3; 32]);

fn model(name: &str, digest: u8) -> ModelStatus {
    ModelStatus {
        card: ModelCard {
            name: name.to_owned(),
            digest: ModelDigest([digest; 32]),
            bytes: 1,
            architecture: "llama".to_owned(),
            quantization: "Q4_1".to_owned(),
            parameters: 1,
            context_length: 2_048,
            chat: true,
        },
        state: ModelState::Ready,
        running: 0,
        queued: 0,
        pending_prompt_tokens: 0,
        prefill_rate: 1_000,
        step_us: 10_000,
    }
}

fn node(id: NodeId, site: &str, models: Vec<ModelStatus>) -> NodeView {
    NodeView {
        node: id,
        me: id == ME,
        name: format!("node-{}", id.0[0]),
        site: site.to_owned(),
        state: PeerState::Alive,
        why: String::new(),
        linked: true,
        rtt: Some(Micros::millis(1)),
        addrs: Vec::new(),
        api: None,
        version: String::new(),
        engine: EngineStatus { models, ..EngineStatus::default() },
        machine: Machine::default(),
    }
}

fn mesh() -> MeshView {
    MeshView {
        me: ME,
        mesh: None,
        nodes: vec![
            node(ME, "shop", vec![]),
            node(PEER, "shop", vec![model("small", 7)]),
            node(FAR, "office", vec![model("small", 7), model("large", 8)]),
        ],
    }
}

fn need(model: &str, label: Label) -> Need {
    let model = model.to_owned();
    Need { model, digest: None, prompt_tokens: 10, answer_tokens: None, label }
}

fn pick(view: &MeshView, need: &Need, exclude: &[NodeId]) -> Result<Option<NodeId>, Code> {
    let mut dice = Dice::from_seed([0; 32]);
    choose(view, need, exclude, &BTreeMap::new(), &mut dice)
        .map(|(_, choice)| choice.chosen)
        .map_err(|refusal| refusal.code)
}

#[test]
fn a_label_bounds_where_data_goes() {
    let view = mesh();
    assert_eq!(pick(&view, &need("small", Label::Site), &[]), Ok(Some(PEER)));
    assert_eq!(pick(&view, &need("large", Label::Site), &[]), Err(Code::Forbidden));
    assert_eq!(pick(&view, &need("large", Label::Mesh), &[]), Ok(Some(FAR)));
    assert_eq!(pick(&view, &need("small", Label::Node), &[]), Err(Code::Forbidden));
}

#[test]
fn names_digests_and_prefixes_mean_files() {
    let view = mesh();
    let digest = ModelDigest([8; 32]);
    for name in ["large", &digest.to_string(), &format!("large@{}", digest.short())] {
        assert_eq!(pick(&view, &need(name, Label::Mesh), &[]), Ok(Some(FAR)), "{name}");
    }
    assert_eq!(pick(&view, &need("large@00000000", Label::Mesh), &[]), Err(Code::ModelNotFound));
    assert_eq!(pick(&view, &need("huge", Label::Mesh), &[]), Err(Code::ModelNotFound));
}

#[test]
fn a_name_as_long_as_a_digest_may_still_be_a_name() {
    let (long, hex) = ("m".repeat(64), ModelDigest([9; 32]).to_string());
    let mut view = mesh();
    view.nodes[1].engine.models.push(model(&long, 5));
    assert_eq!(view.file_of(&long), Some(ModelDigest([5; 32])));
    assert_eq!(view.file_of(&hex), Some(ModelDigest([9; 32])), "known or not");
    assert_eq!(view.file_of(&hex[1..]), None);
    assert_eq!(view.plain_model_name(&long), long);
}

#[test]
fn what_failed_or_is_not_linked_is_not_chosen() {
    let mut view = mesh();
    assert_eq!(pick(&view, &need("small", Label::Mesh), &[PEER]), Ok(Some(FAR)));
    assert_eq!(pick(&view, &need("small", Label::Mesh), &[PEER, FAR]), Ok(None));
    view.nodes[1].linked = false;
    assert_eq!(pick(&view, &need("small", Label::Mesh), &[]), Ok(Some(FAR)));
    view.nodes[2].state = PeerState::Frozen;
    assert_eq!(pick(&view, &need("small", Label::Mesh), &[]), Ok(None));
}

#[test]
fn the_union_names_each_model_once_with_its_nodes() {
    let mut view = mesh();
    let union = view.models();
    assert_eq!(union.len(), 2);
    assert_eq!(union[1].card.name, "small");
    assert_eq!(union[1].nodes, ["node-2", "node-3"]);
    view.nodes[2].state = PeerState::Dead;
    assert_eq!(view.models().len(), 1, "models of dead nodes are not offered");
    let refusal = choose(
        &view,
        &need("huge", Label::Mesh),
        &[],
        &BTreeMap::new(),
        &mut Dice::from_seed([0; 32]),
    )
    .expect_err("unknown");
    assert!(refusal.message.contains("small"), "{}", refusal.message);
    assert_eq!(refusal.param.as_deref(), Some("model"));
}

#[test]
fn a_model_that_writes_nothing_is_not_asked_to() {
    let mut view = mesh();
    let mut reader = model("reader", 9);
    reader.card.architecture = "bert".to_owned();
    view.nodes[1].engine.models.push(reader);
    assert_eq!(pick(&view, &need("reader", Label::Mesh), &[]), Err(Code::Unsupported));
    assert!(view.card_of("reader").is_some_and(ModelCard::embeds));
    assert!(!view.card_of("small").is_some_and(ModelCard::embeds));
    assert_eq!(view.card_of("huge"), None);
}

#[test]
fn a_model_of_tensors_is_asked_where_it_is_ready_and_the_data_may_go() {
    let mut view = mesh();
    let sensor = |state| {
        let mut sensor = model("sensor", 9);
        sensor.card.architecture = "onnx".to_owned();
        ModelStatus { state, ..sensor }
    };
    assert_eq!(holders(&view, "sensor", Label::Mesh).expect_err("none").code, Code::ModelNotFound);
    assert_eq!(holders(&view, "small", Label::Mesh).expect_err("writes").code, Code::Unsupported);
    view.nodes[1].engine.models.push(sensor(ModelState::Cold));
    view.nodes[2].engine.models.push(sensor(ModelState::Ready));
    let nodes = |view: &MeshView, label| holders(view, "sensor", label).map(|(_, nodes)| nodes);
    assert_eq!(nodes(&view, Label::Mesh), Ok(vec![FAR, PEER]), "the one that is loaded first");
    assert_eq!(nodes(&view, Label::Site), Ok(vec![PEER]));
    assert_eq!(nodes(&view, Label::Node).expect_err("elsewhere").code, Code::Forbidden);
    // A node that takes the same file for something else is not asked.
    let mut older = sensor(ModelState::Ready);
    older.card.architecture = "bert".to_owned();
    view.nodes[0].engine.models.push(older);
    assert_eq!(nodes(&view, Label::Mesh), Ok(vec![FAR, PEER]));
    assert_eq!((view.infers("sensor"), view.infers("small")), (true, false));
    view.nodes[0].engine.models.clear();
    view.nodes[0].engine.models.push(sensor(ModelState::Cold));
    assert_eq!(nodes(&view, Label::Mesh), Ok(vec![FAR, ME, PEER]), "its own copy must load");
    assert_eq!(nodes(&view, Label::Node), Ok(vec![ME]));
    view.nodes[0].engine.models[0].state = ModelState::Ready;
    assert_eq!(nodes(&view, Label::Mesh), Ok(vec![ME, FAR, PEER]));
    view.nodes[0].engine.models.clear();
    view.nodes[1].engine.models.clear();
    view.nodes[2].linked = false;
    assert_eq!(nodes(&view, Label::Mesh), Ok(vec![]), "known, and out of reach");
    assert_eq!(pick(&view, &need("sensor", Label::Mesh), &[]), Err(Code::Unsupported));
}

#[test]
fn copies_are_those_in_memory_of_others_that_can_be_asked() {
    let mut view = mesh();
    let small = ModelDigest([7; 32]);
    let holds = |view: &MeshView| view.copies().get(&small).copied();
    let before = holds(&view).expect("peers have it");
    let of = |view: &mut MeshView, node: NodeId, state| {
        let node = view.nodes.iter_mut().find(|one| one.node == node).expect("it is there");
        let model = node.engine.models.iter_mut().find(|model| model.card.digest == small);
        model.expect("it has it").state = state;
    };
    of(&mut view, PEER, ModelState::Cold);
    assert_eq!(holds(&view).unwrap_or(0), before - 1);
    of(&mut view, PEER, ModelState::Ready);
    view.nodes.iter_mut().find(|one| one.node == PEER).expect("it is there").linked = false;
    assert_eq!(holds(&view).unwrap_or(0), before - 1, "out of reach");
    view.nodes.retain(|node| node.me);
    assert_eq!(holds(&view), None, "its own copy is no second one");
}

#[test]
fn a_failed_node_does_not_change_the_file_of_a_running_answer() {
    let mut view = mesh();
    view.nodes.push(node(NodeId([4; 32]), "shop", vec![model("small", 9)]));
    let settled = Need { digest: Some(ModelDigest([7; 32])), ..need("small", Label::Mesh) };
    assert_eq!(pick(&view, &settled, &[PEER]), Ok(Some(FAR)));
    assert_eq!(pick(&view, &settled, &[PEER, FAR]), Ok(None));
}

#[test]
fn a_model_is_counted_by_its_name_however_it_is_written() {
    let view = mesh();
    let digest = ModelDigest([7; 32]).to_string();
    let written = ["small".to_owned(), digest.clone(), format!("small@{}", &digest[..12])];
    for asked in &written {
        assert_eq!(view.plain_model_name(asked), "small", "{asked}");
    }
    assert_eq!(view.plain_model_name("none@here"), "none@here");
    assert_eq!(view.own_model("small"), None, "only peers have it");
}

#[test]
fn sound_goes_to_models_that_hear_and_nothing_else_does() {
    let mut view = mesh();
    let mut ears = model("ears", 9);
    ears.card.architecture = "whisper".to_owned();
    view.nodes[2].engine.models.push(ears);
    let listener = |need: &Need| {
        let mut dice = Dice::from_seed([0; 32]);
        choose_listener(&view, need, &[], &BTreeMap::new(), &mut dice)
    };
    let (digest, choice) = listener(&need("ears", Label::Mesh)).expect("one that hears");
    assert_eq!((digest, choice.chosen), (ModelDigest([9; 32]), Some(FAR)));
    assert_eq!(listener(&need("ears", Label::Site)).expect_err("far").code, Code::Forbidden);
    let deaf = listener(&need("small", Label::Mesh)).expect_err("it writes");
    assert!(deaf.code == Code::Unsupported && deaf.message.contains("hears nothing"), "{deaf}");
    let mut dice = Dice::from_seed([0; 32]);
    let chat = need("ears", Label::Mesh);
    let refused = choose(&view, &chat, &[], &BTreeMap::new(), &mut dice).expect_err("it hears");
    assert!(refused.message.contains("/v1/audio/transcriptions"), "{refused}");
}

#[test]
fn a_machine_is_spared_for_what_is_known_of_it_only() {
    let on_battery = |percent| Condition {
        has_battery: Some(true),
        battery_percent: percent,
        on_battery: Some(true),
        ..Condition::default()
    };
    assert_eq!(strain(&Condition::default()), None);
    assert_eq!(strain(&on_battery(None)), None);
    assert_eq!(strain(&on_battery(Some(20))), None);
    assert_eq!(strain(&on_battery(Some(19))), Some(Strain::Battery { percent: 19 }));
    let charging = Condition { on_battery: Some(false), ..on_battery(Some(3)) };
    assert_eq!(strain(&charging), None);
    let warm = |temperature, headroom| Condition { temperature, headroom, ..Condition::default() };
    assert_eq!(strain(&warm(Some(899), Some(51))), None);
    assert_eq!(strain(&warm(Some(900), None)), Some(Strain::Hot { decidegrees: 900 }));
    assert_eq!(strain(&warm(Some(700), Some(50))), Some(Strain::NearLimit { decidegrees: 50 }));
}

#[test]
fn a_strained_node_is_asked_after_others_and_all_the_same_where_it_is_the_only_one() {
    let mut view = mesh();
    view.nodes[1].machine.now =
        Condition { on_battery: Some(true), battery_percent: Some(9), ..Condition::default() };
    assert_eq!(pick(&view, &need("small", Label::Mesh), &[]), Ok(Some(FAR)));
    assert_eq!(pick(&view, &need("small", Label::Site), &[]), Ok(Some(PEER)));
    assert_eq!(pick(&view, &need("small", Label::Mesh), &[FAR]), Ok(Some(PEER)));
}
