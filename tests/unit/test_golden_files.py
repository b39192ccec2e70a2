"""Many tests ask a golden file which cases it has; a case that went missing there would go missing silently."""

import pytest

from golden_files import FOLDER, list_cases

CASES = {
    "abd_net": (
        "abd_channel_attention abd_head_cam_eval abd_head_identity_eval abd_head_pam_eval abd_position_attention"
    ),
    "ddag": ("ddag_graph_attention_elu ddag_graph_attention_linear ddag_part_attention_eval ddag_part_attention_train"),
    "caj": (
        "caj_ddag_kl_temperature_3 triplet_adaptive_a1_g1_s0 triplet_adaptive_a1_g1_s1 triplet_adaptive_a2_g05_s1 "
        "triplet_adaptive_a2_g3_s0"
    ),
    "dart": "step",
    "distances": "features",
    "losses_classification": "cross_entropy_label_smoothing_01 cross_entropy_plain idf_distillation_kl",
    "losses_enhancement": "colour enhancement_total exposure_16_06 spatial ssim_dissimilarity tv",
    "gallery_selection": "llcm sysu",
    "losses_metric": (
        "cpm_far_apart cpm_requested_margin_02 cpm_requested_margin_07 orthogonal "
        "triplet_batch_hard_m03 triplet_batch_hard_m03_shuffled_batch triplet_batch_hard_normalised_m03 "
        "triplet_batch_hard_soft_margin triplet_weighted_regularised triplet_weighted_regularised_normalised"
    ),
    "metrics_cross_modality": (
        "deen_fusion llcm llcm_gallery_12_images_6_ids llcm_single_query_match llcm_single_query_no_match "
        "llcm_ties_stable regdb regdb_gallery_of_10 regdb_single_query_match regdb_single_query_no_match "
        "regdb_ties_stable sysu_all sysu_gallery_12_images_6_ids sysu_gallery_of_10 sysu_indoor "
        "sysu_single_query_match sysu_single_query_no_match sysu_ties_stable sysu_ties_within_identity"
    ),
    "metrics_market": (
        "market market_junk market_ranks_0 market_ranks_0_2_5 market_ranks_1 market_ranks_11 market_ranks_3_9 "
        "market_single_query_only_same_camera market_ties_stable market_ties_within_role"
    ),
    "batches_before": "augment sampler",
    "modules_deen": (
        "cnl_flag0_eval cnl_flag0_train cnl_flag1_eval cnl_flag1_train dee_64_eval dee_64_train_no_dropout "
        "mfa_flag0_eval mfa_flag0_train mfa_flag1_at_init_train mfa_flag1_eval mfa_flag1_odd_width_eval "
        "mfa_flag1_train pnl_flag0_eval pnl_flag0_train pnl_flag1_eval pnl_flag1_train"
    ),
    "modules_enhancement": (
        "curve_iteration curve_net_dark curve_net_divided_by_255 curve_net_fill curve_net_intermediate "
        "curve_net_unit_range"
    ),
    "modules_idf": (
        "classifier_head_eval_no_dropout classifier_head_train_no_dropout fusion_64 reconstruction_mse test_feature"
    ),
    "modules_other": (
        "agw_vi_neck_eval agw_vi_neck_train bnneck_eval_after bnneck_eval_before bnneck_train gem_p3 "
        "non_local_vi_eval non_local_vi_train"
    ),
    "modules_transreid": (
        "jigsaw_n10_s5_g2 jigsaw_n128_s5_g2 jigsaw_n128_s8_g4 jigsaw_n210_s5_g2 jigsaw_n211_s5_g2 "
        "position_resize_4x4_to_7x3 transreid_eval_after transreid_eval_before transreid_train"
    ),
    "reranking": "k10_1_00 k20_6_03 k20_6_10 k50_15_03",
    "samplers": (
        "cross_modality_sampler_0 cross_modality_sampler_1 cross_modality_sampler_2 pk_sampler_0 pk_sampler_1"
    ),
    "strong_baselines": (
        "center gem_learnable_p25 non_local_single_eval non_local_single_train "
        "triplet_weighted_regularised_single_modality"
    ),
    "scene_before": "near_3_2_4 thermal_3_2_4 visible_1_1_1 visible_2_3_1 visible_4_1_1 visible_5_3_1",
    "schedules": "agw_vi caj deen idf strong_baseline",
}
ITERATED = {  # file -> outputs by which a test chooses its cases, and cases that tests name
    "metrics_cross_modality": (("cmc", "no_valid_query"), "deen_fusion"),
    "metrics_market": (("rect_cmc", "trap_cmc"), "market_single_query_only_same_camera"),
    "reranking": (("from_cosine", "from_euclidean", "from_squared_euclidean"), "k20_6_03"),
}


def test_the_golden_files_hold_the_cases_that_the_tests_rely_on() -> None:
    assert {path.stem: list_cases(path.stem) for path in FOLDER.glob("*.npz")} == {
        file: names.split() for file, names in CASES.items()
    }


@pytest.mark.parametrize("file", ITERATED)
def test_every_case_of_a_file_that_is_walked_through_is_chosen_by_some_test(file: str) -> None:
    outputs, named = ITERATED[file]
    assert {named}.union(*(list_cases(file, output) for output in outputs)) == set(CASES[file].split())
