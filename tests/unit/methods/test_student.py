import pytest
import torch
from torch import nn

from tapetum.core.errors import RecipeError
from tapetum.core.types import Batch
from tapetum.layers.backbones import build_backbone
from tapetum.layers.products import counting_flops
from tapetum.losses.distillation import distillation
from tapetum.losses.similarity import similarity_distillation
from tapetum.methods import build_method, build_options, idf, small_options, write_options
from tapetum.methods.student import teacher_options

EXTRACTOR = {"backbone": "test_resnet", "width": 16, "dropout": 0.0}
PEOPLE = 3
DCE = {"curve_smoothness", "exposure", "colour", "spatial"}
IDF = DCE | {"id_enhanced", "id_night", "id_fused", "reconstruction", "distillation"}
TAUGHT = {"id_student", "id_bright", "scores", "similarities"}


def make_batch(size=6):
    images = 0.2 * torch.rand(size, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(size) // 2
    return Batch(images, labels, labels, labels, torch.zeros_like(labels))


def build(name="student", **options):
    """With every term that a student can learn from; the similarities are off by default."""
    torch.manual_seed(11)
    every = {"similarity_weight": 10.0} if name == "student" else {}
    return build_method(name, small_options(name) | every | options, PEOPLE)


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


def embed(method, batch, **options):
    with torch.no_grad():
        return method.eval().embed(batch.images, batch.modalities, batch.camids, **options)


# What a search costs


@pytest.mark.parametrize("mirror", [False, True])
def test_a_search_runs_the_student_alone_at_the_operations_and_weights_of_the_baseline(mirror):
    method, baseline, batch = build(), build("ide"), make_batch()
    ran = set()
    for name, module in method.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    with counting_flops() as ours:
        embed(method, batch, mirror=mirror)
    assert "student.head.classifier" in ran
    assert {name.split(".")[0] for name in ran} == {"student"}
    with counting_flops() as plain:
        embed(baseline, batch, mirror=mirror)
    assert ours.get_total_flops() == plain.get_total_flops() > 0
    assert [tuple(weights.shape) for weights in method.student.parameters()] == [
        tuple(weights.shape) for weights in baseline.parameters()
    ]


def test_the_student_s_weights_are_a_network_of_the_baseline_s_method_and_give_the_same_vectors():
    method, batch = build(), make_batch()
    baseline = build("ide")
    baseline.load_state_dict(method.student.state_dict())
    for mirror in (False, True):
        assert torch.equal(embed(baseline, batch, mirror=mirror), embed(method, batch, mirror=mirror))


def test_what_an_exporter_traces_has_neither_the_enhancer_nor_the_teacher_s_branches():
    class Described(nn.Module):
        def __init__(self, method):
            super().__init__()
            self.method = method

        def forward(self, images):
            zeros = torch.zeros(len(images), dtype=torch.int64)
            return self.method.embed(images, zeros, zeros, mirror=True)

    program = torch.export.export(Described(build().eval()), (make_batch().images,), strict=False)
    used = {node.target for node in program.graph.nodes if node.op == "placeholder" and node.users}
    state = program.graph_signature.inputs_to_parameters | program.graph_signature.inputs_to_buffers
    owners = {state[name].split(".")[1] for name in used if name in state}
    assert "student" in owners
    assert "teacher" not in owners


# What it learns


def test_the_losses_are_idf_s_the_student_s_own_and_what_it_learns_from_the_teacher():
    options = {"score_weight": 0.5, "score_temperature": 3.0, "similarity_weight": 7.0, "bright_weight": 0.4}
    method, batch = build(**options), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert losses.keys() == IDF | TAUGHT
    bright = method.student(output.teacher.enhanced.clamp(0, 1), batch.modalities, batch.camids)
    torch.testing.assert_close(losses["id_bright"], 0.4 * nn.functional.cross_entropy(bright.logits, batch.labels))
    cross_entropy = nn.functional.cross_entropy(output.student.logits, batch.labels)
    torch.testing.assert_close(losses["id_student"], cross_entropy)
    heads = output.teacher.heads
    torch.testing.assert_close(
        losses["scores"], 0.5 * distillation(output.student.logits, heads["f"].logits, temperature=3.0)
    )
    joined = torch.cat([heads[name].embedding for name in "evf"], 1)
    torch.testing.assert_close(losses["similarities"], 7.0 * similarity_distillation(output.student.embedding, joined))


def test_a_weight_of_zero_switches_a_term_off():
    method, batch = build(score_weight=0.0, similarity_weight=0.0, bright_weight=0.0), make_batch()
    assert method.losses(run(method, batch), batch).keys() == IDF | {"id_student"}


def test_the_student_changes_nothing_of_the_teacher_s_training_nor_the_teacher_the_student_s_own_loss():
    method, batch = build(), make_batch()
    losses = method.losses(run(method, batch), batch)
    sum(losses[name] for name in TAUGHT).backward(retain_graph=True)
    assert all(weights.grad is None for weights in method.teacher.parameters())
    for weights in (method.student.head.reduce.weight, method.student.branch.backbone.conv1[0].weight):
        assert weights.grad.abs().sum() > 0
    method.zero_grad()
    torch.stack([losses[name] for name in IDF]).sum().backward()
    assert all(weights.grad is None for weights in method.student.parameters())


def test_brightened_pictures_leave_no_trace_in_the_student_s_running_statistics():
    method, batch = build(), make_batch()
    plain = build("ide")
    plain.load_state_dict(method.student.state_dict())
    run(plain, batch)
    run(method, batch)
    expected = dict(plain.named_buffers())
    assert any("running_mean" in name for name in expected)
    for name, statistics in method.student.named_buffers():
        assert torch.equal(statistics, expected[name])


@pytest.mark.parametrize("options", [{"input_scale": 0.5}, {"teacher": {"curve_width": 4, "input_scale": 0.5}}])
def test_whatever_range_the_teacher_brightens_in_the_student_sees_pictures(options):
    method, batch = build(**options), make_batch()
    output = run(method, batch)
    seen = output.teacher.enhanced.clamp(0, 0.5) / 0.5
    expected = method.student(seen, batch.modalities, batch.camids)
    torch.testing.assert_close(output.bright.embedding, expected.embedding)
    assert run(method.eval(), batch).bright is None


def test_what_regularises_a_student_s_weights_counts_once():
    settings = small_options("abd_net")
    options = {"extractor": "abd_net", "extractor_options": settings, "teacher": {"curve_width": 4}}
    method = build_method("student", options | {"normalisation": "half", "test_feature": "head"}, PEOPLE, size=(64, 32))
    names = method.losses(run(method, make_batch()), make_batch()).keys()
    assert {"ow_student", "id_student", "id_bright"} <= names
    assert "ow_bright" not in names


def test_the_student_sees_the_night_picture_as_the_recipe_normalises_it():
    method, batch = build(input_scale=0.5, normalisation="half").eval(), make_batch()
    with torch.no_grad():
        seen = (0.5 * batch.images - 0.5) / 0.5
        expected = method.student.head(method.student.branch(seen, batch.modalities, batch.camids))
        torch.testing.assert_close(run(method, batch).student.embedding, expected.embedding)


def test_a_few_steps_bring_the_student_s_similarities_to_the_teacher_s():
    method, batch = build(score_weight=0.0).eval(), make_batch()
    optimiser = torch.optim.Adam(method.student.parameters(), lr=1e-3)
    history = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = method.losses(run(method, batch), batch)["similarities"]
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.2 * history[0]


# Options


def test_what_the_teacher_does_not_name_it_shares_with_the_student():
    method = build(input_scale=0.5, normalisation="half", test_feature="backbone", teacher={"curve_width": 8})
    teacher = method.teacher.options
    assert (teacher.input_scale, teacher.normalisation, teacher.test_feature) == (0.5, "half", "backbone")
    assert (dict(teacher.extractor_options), teacher.curve_width) == (EXTRACTOR, 8)
    assert embed(method, make_batch()).shape == (6, 96)


def test_the_teacher_may_have_other_extractors_than_the_student():
    teacher = {
        "extractor": "bot",
        "extractor_options": {"backbone": "test_resnet", "last_stride": 2, "stem_relu": True},
    }
    method, batch = build(teacher={"curve_width": 4, **teacher}), make_batch()
    losses = method.losses(run(method, batch), batch)
    assert {"triplet_fused", "id_student", "scores", "similarities"} <= set(losses)
    assert embed(method, batch).shape == (6, 16)


@pytest.mark.parametrize(
    "teacher", [{"curve_width": 4}, {"extractor": "bot", "extractor_options": small_options("bot")}]
)
def test_options_written_out_name_those_of_extractor_and_teacher_and_build_the_same(teacher):
    options = {"extractor": "bnneck", "extractor_options": {"label_smoothing": 0.25}, "teacher": teacher}
    whole = write_options("student", options)
    assert (whole["extractor_options"]["label_smoothing"], whole["extractor_options"]["stem_relu"]) == (0.25, True)
    assert whole["teacher"]["distillation_weight"] == 0.1
    assert "last_stride" in whole["teacher"]["extractor_options"]
    assert write_options("student", whole) == whole
    student, again = build_options("student", options), build_options("student", whole)
    assert idf.extractor_settings(student) == idf.extractor_settings(again)
    teachers = teacher_options(student), teacher_options(again)
    assert idf.extractor_settings(teachers[0]) == idf.extractor_settings(teachers[1])
    assert teachers[0].written_out() == teachers[1].written_out()


@pytest.mark.parametrize("extractor", ["bot", "agw", "pcb", "transreid", "abd_net"])
def test_every_extractor_of_idf_can_be_a_student(extractor):
    settings = small_options(extractor)
    torch.manual_seed(5)
    own = {
        "normalisation": "half",
        "test_feature": "head",
    }  # which are the student's to decide, whatever an extractor's
    options = own | {"extractor": extractor, "extractor_options": settings, "teacher": {"curve_width": 4}}
    method = build_method("student", options, PEOPLE, camids=(0, 1, 2), size=(64, 32))
    batch = make_batch()
    losses = method.losses(run(method, batch), batch)
    torch.stack(list(losses.values())).sum().backward()
    assert "scores" in losses
    plain = build_method(extractor, settings | own, PEOPLE, camids=(0, 1, 2), size=(64, 32))
    plain.load_state_dict(method.student.state_dict())
    assert torch.equal(embed(method, batch, mirror=True), embed(plain, batch, mirror=True))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"teacher": {"curve_wdith": 4}}, "method.teacher: method.curve_wdith is unknown; did you mean curve_width"),
        ({"teacher": {"fusion": "none"}}, "method.teacher.fusion: none leaves no fused head to follow"),
        ({"teacher": {"streams": "enhanced"}}, "method.teacher: method.fusion: bottleneck needs two streams"),
        ({"extractor": "idf", "extractor_options": {}}, "method.extractor: idf has no class Branch"),
        ({"extractor_options": {"test_feature": "head"}}, "method.extractor_options.test_feature: is decided for both"),
        (
            {"teacher": {"streams": "night_twice"}},
            "method.teacher.streams: night_twice brightens nothing; set",
        ),
        ({"score_temperature": 0.0}, "method.score_temperature"),
        ({"similarity_weight": -1.0}, "method.similarity_weight"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, complaint):
    with pytest.raises(RecipeError, match=complaint):
        build_options("student", small_options("student") | options)


def test_similarities_are_taught_where_they_are_asked_for_alone():
    method, batch = build_method("student", small_options("student"), PEOPLE), make_batch()
    assert method.losses(run(method, batch), batch).keys() == IDF | TAUGHT - {"similarities"}


def test_without_its_scores_the_teacher_needs_no_fused_head():
    method, batch = build(score_weight=0.0, teacher={"curve_width": 4, "fusion": "none"}), make_batch()
    assert {"similarities", "id_student"} < set(method.losses(run(method, batch), batch))


# Weights to start from


def test_the_student_and_both_extractors_start_from_the_same_file(tmp_path):
    torch.save(build_backbone("test_resnet")[0].state_dict(), tmp_path / "weights.pth")
    method = build()
    method.load_pretrained(str(tmp_path / "weights.pth"))
    expected = method.student.branch.state_dict()
    for branch in (method.teacher.second, method.teacher.night):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in branch.state_dict().items())
