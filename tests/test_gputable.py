"""Names of GPUs to numbers, and planned machines from text."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, Origin
from profiles.machines import gputable, instances, planned_host
from profiles.machines.gputable import look_up
from profiles.machines.planned import plan_machine

NAMES = [
    ("NVIDIA A10G", 23028, "a10g"),
    ("NVIDIA A10", 23028, "a10"),
    ("NVIDIA A100-SXM4-80GB", 81920, "a100-sxm-80"),
    ("NVIDIA A100-SXM4-40GB", 40960, "a100-sxm-40"),
    ("NVIDIA A100-PCIE-40GB", 40960, "a100-pcie-40"),
    ("A100-PCIE-40GB", 40536, "a100-pcie-40"),
    ("NVIDIA A100 80GB PCIe", 81920, "a100-pcie-80"),
    ("NVIDIA A800-SXM4-80GB", 81920, "a800-sxm-80"),
    ("NVIDIA L40S", 46068, "l40s"),
    ("NVIDIA L40", 46068, "l40"),
    ("NVIDIA L4", 23034, "l4"),
    ("NVIDIA H200", 143771, "h200-sxm"),
    ("NVIDIA H200 NVL", 143771, "h200-nvl"),
    ("NVIDIA H20", 97871, "h20"),
    ("NVIDIA H100 80GB HBM3", 81559, "h100-sxm"),
    ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
    ("NVIDIA H100 NVL", 95830, "h100-nvl"),
    ("NVIDIA GH200 480GB", 97871, "gh200-96"),
    ("NVIDIA GH200 144G HBM3e", 146831, "gh200-144"),
    ("NVIDIA GB200", 189471, "gb200"),
    ("NVIDIA B200", 183359, "b200-sxm"),
    ("NVIDIA GB10", None, "gb10-dgx-spark"),
    ("NVIDIA GeForce RTX 4070 Ti SUPER", 16376, "rtx-4070-ti-super"),
    ("NVIDIA GeForce RTX 4070 Ti", 12282, "rtx-4070-ti"),
    ("NVIDIA GeForce RTX 4070 SUPER", 12282, "rtx-4070-super"),
    ("NVIDIA GeForce RTX 4070", 12282, "rtx-4070"),
    ("NVIDIA GeForce RTX 4090", 24564, "rtx-4090"),
    ("NVIDIA GeForce RTX 4090 D", 24564, "rtx-4090-d"),
    ("NVIDIA GeForce RTX 4090", 49140, "rtx-4090"),
    ("NVIDIA GeForce RTX 4060 Ti", 16380, "rtx-4060-ti-16"),
    ("NVIDIA GeForce RTX 4060 Ti", 8188, "rtx-4060-ti-8"),
    ("NVIDIA GeForce RTX 3060", 12288, "rtx-3060-12"),
    ("NVIDIA RTX 6000 Ada Generation", 49140, "rtx-6000-ada"),
    ("Quadro RTX 6000", 24220, "quadro-rtx-6000"),
    ("NVIDIA RTX A6000", 46068, "rtx-a6000"),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887, "rtx-pro-6000-bw"),
    (
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        97887,
        "rtx-pro-6000-bw-maxq",
    ),
    ("Tesla T4", 15109, "t4"),
    ("Tesla V100-SXM2-16GB", 16160, "v100-sxm2-16"),
    ("Orin", 62841, "jetson-agx-orin-64"),
    ("Orin Nano", 7620, "jetson-orin-nano"),
    ("AMD Instinct MI300X", 196592, "mi300x"),
    ("AMD Instinct MI250X", 65520, "mi250x"),
    ("Apple M3 Pro", None, "apple-m3-pro"),
    ("Apple M3", None, "apple-m3"),
    ("NVIDIA H800", 81559, "h800-sxm"),
    ("NVIDIA H800 PCIe", 81559, "h800-pcie"),
    ("NVIDIA L20", 46068, "l20"),
    ("NVIDIA A40", 46068, "a40"),
    ("NVIDIA A16", 15356, "a16"),
    ("NVIDIA GB300", 284208, "gb300"),
    ("NVIDIA GeForce RTX 3080", 12288, "rtx-3080-12"),
    ("NVIDIA GeForce RTX 3080", 10240, "rtx-3080-10"),
    ("NVIDIA GeForce RTX 5090 D", 32607, "rtx-5090-d"),
    ("NVIDIA RTX 4000 SFF Ada Generation", 20475, "rtx-4000-ada-sff"),
    ("NVIDIA T4G", 15109, "t4g"),
    ("Tesla V100-PCIE-32GB", 32510, "v100-pcie-32"),
    ("AMD Instinct MI210", 65520, "mi210"),
    ("Apple M4 Max", None, "apple-m4-max"),
]

RATES = [
    ("NVIDIA GeForce RTX 4090", 24564, 165.2, 1008),
    ("NVIDIA GeForce RTX 3090", 24576, 71.2, 936),
    ("NVIDIA GeForce RTX 3080", 10240, 59.6, 760),
    ("NVIDIA RTX A6000", 46068, 154.8, 768),
    ("NVIDIA A10G", 23028, 70.0, 600),
    ("NVIDIA A10", 23028, 125.0, 600),
    ("NVIDIA GeForce RTX 2080 Ti", 11264, 53.8, 616),
    ("NVIDIA L40S", 46068, 362.1, 864),
    ("NVIDIA L4", 23034, 121.0, 300),
    ("NVIDIA H200", 143771, 989.5, 4800),
    ("NVIDIA H100 80GB HBM3", 81559, 989.5, 3350),
    ("NVIDIA H100 PCIe", 81559, 756.5, 2039),
    ("NVIDIA H100 NVL", 95830, 835.5, 3917),
    ("NVIDIA H800", 81559, 989.5, 3350),
    ("NVIDIA H800 PCIe", 81559, 756.5, 2039),
    ("NVIDIA A100-SXM4-80GB", 81920, 312.0, 2039),
    ("NVIDIA A100-SXM4-40GB", 40960, 312.0, 1555),
]
"""Parts that public tables have wrong: 16-bit dense rate with FP32 sums, and memory bandwidth."""

LAPTOPS = [
    ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376, "rtx-4090-laptop"),
    ("NVIDIA RTX 5000 Ada Generation Laptop GPU", 16376, "rtx-5000-ada-laptop"),
    ("NVIDIA GeForce RTX 4060 Laptop GPU", 8188, "rtx-4060-laptop"),
    ("NVIDIA GeForce RTX 3080 Ti Laptop GPU", 16384, "rtx-3080-ti-laptop"),
    ("NVIDIA GeForce RTX 3080 Laptop GPU", 8192, "rtx-3080-8-laptop"),
    ("NVIDIA GeForce RTX 3080 Laptop GPU", 16384, "rtx-3080-16-laptop"),
]

STRANGERS = [
    ("Quadro RTX 5000 with Max-Q Design", 16384),
    ("NVIDIA GeForce RTX 2080 Super with Max-Q Design", 8192),
    ("NVIDIA GeForce RTX 3050", 6144),
    ("NVIDIA A10-4Q", 4096),
    ("Orin", 15656),
    ("Orin", None),
    ("NVIDIA GeForce RTX 9090", 65536),
    ("NVIDIA A100X", 81920),
    ("NVIDIA GeForce RTX 2070 Laptop GPU", 8188),
    ("NVIDIA H100 64GB", 65000),
    ("NVIDIA H20Z", 143771),
    ("NVIDIA RTX 6000D", 86016),
    ("NVIDIA L40G", 24576),
    ("NVIDIA DGX Display", 4096),
    ("Orin NX", 15656),
    ("Quadro GV100", 32510),
    ("GRID A100-10C", 10240),
    ("GRID A16-4Q", 4096),
    ("GRID A100D-20C", 20480),
    ("", None),
]


@pytest.mark.parametrize(("name", "total_mib", "spec_id"), NAMES)
def test_a_driver_name_finds_its_part(name: str, total_mib: int | None, spec_id: str) -> None:
    """Every name in the wild leads to its own block, whatever else its text contains."""
    spec = look_up(name, total_mib)
    assert spec_id == (spec and spec.id)


@pytest.mark.parametrize(("name", "total_mib"), STRANGERS)
def test_a_part_not_in_the_table_has_no_numbers(name: str, total_mib: int | None) -> None:
    """Laptop parts, shares of a card and unknown parts never borrow another part's speed."""
    assert look_up(name, total_mib) is None


@pytest.mark.parametrize(("name", "total_mib", "spec_id"), LAPTOPS)
def test_a_laptop_part_has_its_own_memory_and_no_rates(
    name: str, total_mib: int, spec_id: str
) -> None:
    """The desktop namesake's memory and rates are another part's."""
    spec = look_up(name, total_mib)
    assert spec is not None
    assert (spec_id, None, None) == (spec.id, spec.fp16_flops, spec.memory_bytes_per_second)
    assert (spec.vram_bytes or 0) == pytest.approx(total_mib * 1024**2, rel=0.01)


@pytest.mark.parametrize(("name", "total_mib", "tflops", "gb_per_second"), RATES)
def test_rates_that_others_have_wrong_are_right(
    name: str, total_mib: int, tflops: float, gb_per_second: float
) -> None:
    """Neither sparse numbers, nor FP16 sums, nor those of a namesake."""
    spec = look_up(name, total_mib)
    assert spec is not None
    assert spec.fp16_flops == pytest.approx(tflops * 1e12, rel=0.01)
    assert spec.memory_bytes_per_second == pytest.approx(gb_per_second * 1e9, rel=0.01)


def test_rates_come_in_base_units() -> None:
    """TFLOPS, GB/s and MiB of the table arrive as FLOP/s, bytes per second and bytes."""
    spec = look_up("NVIDIA A100-SXM4-80GB", 81920)
    assert spec is not None
    assert (312e12, 312e12, 156e12, 19.5e12) == (
        spec.bf16_flops,
        spec.fp16_flops,
        spec.tf32_flops,
        spec.fp32_flops,
    )
    assert (2039e9, 600e9, 80 * GIB) == (
        spec.memory_bytes_per_second,
        spec.nvlink_bytes_per_second,
        spec.vram_bytes,
    )
    assert (0.869, "8.0", 4, 16) == (
        spec.achievable_share,
        spec.compute_capability,
        spec.pcie_generation,
        spec.pcie_lanes,
    )


@pytest.mark.parametrize(
    ("name", "compute_share", "bandwidth_share"),
    [
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 1 / 7, 1 / 8),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 3 / 7, 4 / 8),
        ("NVIDIA A100-SXM4-80GB MIG 1c.3g.40gb", 1 / 7, 4 / 8),
        ("NVIDIA H100 80GB HBM3 MIG 7g.80gb", 1, 1),
        ("NVIDIA A30 MIG 1g.6gb", 1 / 4, 2 / 8),
    ],
)
def test_a_mig_slice_gets_its_share(
    name: str, compute_share: float, bandwidth_share: float
) -> None:
    """Compute goes by compute slices (four on an A30), bandwidth by eighths of the memory."""
    whole, part = look_up(name.partition(" MIG")[0]), look_up(name, 9728)
    assert whole is not None
    assert part is not None
    assert part.bf16_flops == pytest.approx((whole.bf16_flops or 0) * compute_share)
    assert part.memory_bytes_per_second == pytest.approx(
        (whole.memory_bytes_per_second or 0) * bandwidth_share
    )
    assert (9728, None) == (part.nvml_total_mib, part.nvlink_bytes_per_second)


def test_every_block_is_whole() -> None:
    """Patterns compile, sources are in the table of sources, keys are known ones."""
    table = tomllib.loads(Path(gputable.__file__).with_name("gpus.toml").read_text("utf-8"))
    known = {"name", "aka", "match", "exclude", "mib_range", "vendor", "memory", "tflops", "mamf"}
    known |= {"compute_capability", "bf16", "pcie", "nvlink_gbs", "nvlink_bridge", "mig_slices"}
    known |= {"unified", "alone", "tdp_w", "confidence", "sources"}
    assert len(table["gpus"]) >= 135
    for spec_id, row in table["gpus"].items():
        re.compile(row["match"])
        assert set(row) <= known, spec_id
        assert set(row["sources"].split()) <= set(table["sources"]), spec_id
        assert row.get("confidence", "high") in {"high", "medium", "low"}, spec_id
        assert row.get("bf16", True) or "bf16" not in row.get("tflops", {}), spec_id


@pytest.mark.parametrize(
    ("text", "spec_ids", "interconnect"),
    [
        ("1x RTX 4090", ["rtx-4090"], None),
        ("4x RTX 4090", ["rtx-4090"] * 4, "pcie"),
        ("4×RTX4090", ["rtx-4090"] * 4, "pcie"),  # noqa: RUF001
        ("rtx 4090 x2", ["rtx-4090"] * 2, "pcie"),
        ("NVIDIA GeForce RTX 4090", ["rtx-4090"], None),
        ("3090 Ti", ["rtx-3090-ti"], None),
        ("8xA100-80G:nvlink", ["a100-sxm-80"] * 8, "nvlink"),
        ("8x A100 80GB : PCIe", ["a100-pcie-80"] * 8, "pcie"),
        ("2x A100 40GB", ["a100-sxm-40"] * 2, "nvlink"),
        ("A100-PCIE-40GB", ["a100-pcie-40"], None),
        ("8x H100", ["h100-sxm"] * 8, "nvlink"),
        ("h100 nvl", ["h100-nvl"], None),
        ("B200 192GB", ["b200-sxm"], None),
        ("L40S", ["l40s"], None),
        ("T4", ["t4"], None),
        ("A10G 24GB", ["a10g"], None),
        ("4070 ti super", ["rtx-4070-ti-super"], None),
        ("RTX 6000 Ada Generation", ["rtx-6000-ada"], None),
        ("DGX Spark", ["gb10-dgx-spark"], None),
        ("2x RTX 3090 + 1x RTX 4090", ["rtx-3090", "rtx-3090", "rtx-4090"], "pcie"),
        ("2x RTX 3090", ["rtx-3090"] * 2, "nvlink"),
        ("4x RTX 3090", ["rtx-3090"] * 4, "pcie"),
        ("3090 x2", ["rtx-3090"] * 2, "nvlink"),
        ("2x A100-80G + 2x A100-40G", ["a100-sxm-80"] * 2 + ["a100-sxm-40"] * 2, "pcie"),
        ("2x A100-80G + 2x A100-40G:nvlink", ["a100-sxm-80"] * 2 + ["a100-sxm-40"] * 2, "nvlink"),
        ("1x H100, 1x 4090", ["h100-sxm", "rtx-4090"], "pcie"),
        ("2x 4090 and 1x 3090", ["rtx-4090", "rtx-4090", "rtx-3090"], "pcie"),
        ("8xH100:pcie", ["h100-pcie"] * 8, "pcie"),
        ("8x A100 80GB NVLink", ["a100-sxm-80"] * 8, "nvlink"),
        ("A100-80", ["a100-sxm-80"], None),
        ("2x 3060 12", ["rtx-3060-12"] * 2, "pcie"),
        ("RTX 4090 Laptop", ["rtx-4090-laptop"], None),
        ("mobile RTX 4090", ["rtx-4090-laptop"], None),
        ("3080 notebook 16GB", ["rtx-3080-16-laptop"], None),
        ("M3 Max", ["apple-m3-max"], None),
        ("MacBook Pro M3 Pro 36GB", ["apple-m3-pro"], None),
        ("p4d", ["a100-sxm-40"] * 8, "nvlink"),
        ("AWS g5.12xlarge", ["a10g"] * 4, "pcie"),
        ("ml.p4de.24xlarge", ["a100-sxm-80"] * 8, "nvlink"),
        ("a2-highgpu-4g", ["a100-sxm-40"] * 4, "nvlink"),
        ("Standard_ND96amsr_A100_v4", ["a100-sxm-80"] * 8, "nvlink"),
        ("ND96isr_MI300X_v5", ["mi300x"] * 8, "nvlink"),
        ("azure nc96ads a100 v4", ["a100-pcie-80"] * 4, "pcie"),
        ("gpu_8x_a100", ["a100-sxm-40"] * 8, "nvlink"),
        ("NVIDIA DGX H100", ["h100-sxm"] * 8, "nvlink"),
        ("DGX A100 640GB", ["a100-sxm-80"] * 8, "nvlink"),
    ],
)
def test_text_becomes_gpus(text: str, spec_ids: list[str], interconnect: str | None) -> None:
    """Spaces, case, vendor words and units do not matter; the link comes from text or table."""
    machine = plan_machine(text)
    assert spec_ids == [gpu.spec_id for gpu in machine.gpus]
    assert interconnect == machine.interconnect
    assert list(range(len(spec_ids))) == [gpu.index for gpu in machine.gpus]


@pytest.mark.parametrize(
    ("text", "num_nodes", "num_gpus"),
    [
        ("2 nodes of 8x H100", 2, 8),
        ("2 nodes with 8x H100:nvlink", 2, 8),
        ("2x8xH100", 2, 8),
        ("4 x 8x A100 80GB", 4, 8),
        ("2x (8x H100)", 2, 8),
        ("8x H100 on 2 nodes", 2, 8),
        ("8x H100, 2 nodes", 2, 8),
        ("1 node of 8x H100", 1, 8),
        ("2 nodes of 2x A100 40GB + 1x T4", 2, 3),
        ("8x H100", 1, 8),
        ("2x p4d.24xlarge", 2, 8),
        ("g5.12xlarge x4", 4, 4),
        ("2 nodes of DGX H200", 2, 8),
    ],
)
def test_several_nodes_are_planned(text: str, num_nodes: int, num_gpus: int) -> None:
    """The GPUs are those of one node; that the network is not known is said."""
    machine = plan_machine(text)
    assert (num_nodes, num_gpus) == (machine.num_nodes, len(machine.gpus))
    assert any("network between" in note for note in machine.notes) == (num_nodes > 1)


def test_bridges_join_two_cards() -> None:
    """NVLink that a person asks for is believed, and its limit said."""
    machine = plan_machine("4x RTX 3090:nvlink")
    assert machine.interconnect == "nvlink"
    assert "NVLink bridges join two RTX 3090 cards" in machine.assumed[0]


def test_a_planned_machine_says_what_it_does_not_know() -> None:
    """RAM and disk follow from the GPUs by a rule that is told; of a processor nothing is said."""
    machine = plan_machine("2x RTX 4090")
    assert machine.planned
    assert ("cuda", 96 * GIB, 96 * GIB, 384 * GIB) == (
        machine.backend,
        machine.ram_bytes,
        machine.ram_free_bytes,
        machine.disk_free_bytes,
    )
    assert (Origin.DEFAULT, Origin.DEFAULT) == (machine.ram_origin, machine.disk_origin)
    assert (0, None, "") == (machine.num_cores, machine.driver, machine.cpu_name)
    note = (
        "Assumed of the planned machine: 96.0 GiB of RAM, 2 times the GPUs' memory (--ram says "
        "another), and 384.0 GiB of free disk, 8 times the GPUs' memory (--disk says another)."
    )
    assert (note,) == machine.notes


def test_what_is_said_of_a_planned_machine_is_not_assumed() -> None:
    """And what is not said still is."""
    one = plan_machine("2x RTX 4090", ram="480G")
    both = plan_machine("2x RTX 4090", ram="1.5 TiB", disk="200")

    assert (480 * GIB, Origin.USER) == (one.ram_free_bytes, one.ram_origin)
    assert (384 * GIB, Origin.DEFAULT) == (one.disk_free_bytes, one.disk_origin)
    assert ["RAM" in note for note in one.notes] == [False]
    assert (1536 * GIB, 200 * GIB) == (both.ram_free_bytes, both.disk_free_bytes)
    assert (Origin.USER, Origin.USER, ()) == (both.ram_origin, both.disk_origin, both.notes)


def test_most_published_machines_have_the_ram_that_is_assumed() -> None:
    """The rule is the table's: not what the largest have, and more than that in the middle."""
    specs = {spec.name: spec for spec in gputable.sized_specs()}
    shares = sorted(
        sold.ram_gib * GIB / (sold.num_gpus * (specs[sold.gpu].vram_bytes or 0))
        for sold in instances.instances()
        if sold.ram_gib
    )

    assert sum(share >= planned_host.RAM_SHARE for share in shares) >= 0.8 * len(shares)
    assert shares[len(shares) // 2] > planned_host.RAM_SHARE
    assert shares[len(shares) // 10] < planned_host.RAM_SHARE


@pytest.mark.parametrize("text", ["", "much", "-5G", "0", "480 GHz", "1e400T", "9" * 400 + "T"])
def test_a_size_that_cannot_be_is_refused(text: str) -> None:
    """With the way to write it."""
    for option in ("ram", "disk"):
        with pytest.raises(UserError) as error:
            plan_machine("RTX 4090", **{option: text})
        assert f"--{option} 480G" in error.value.do


def test_planned_gpus_are_idle_and_carry_the_driver_s_memory() -> None:
    """All of the memory that a driver would report is free, and the numbers are the table's."""
    gpu = plan_machine("RTX 4090").gpus[0]
    assert (24564 * 1024**2, 0, Origin.TABLE) == (gpu.vram_bytes, gpu.held_bytes, gpu.origin)
    assert (165.2e12, 450, 4, 16) == (
        gpu.bf16_flops,
        gpu.power_limit_watts,
        gpu.pcie_generation,
        gpu.pcie_lanes,
    )


@pytest.mark.parametrize(
    ("text", "gib", "others"),
    [
        ("A100", 40, ["A100 SXM 80GB", "A100 PCIe 80GB"]),
        ("RTX 3060", 8, ["RTX 3060 12GB"]),
        ("4060 Ti", 8, ["RTX 4060 Ti 16GB"]),
        ("5060 Ti", 8, ["RTX 5060 Ti 16GB"]),
        ("H100", 80, ["H100 NVL", "H100 PCIe"]),
        ("RTX 3080 Laptop", 8, ["RTX 3080 Laptop 16GB"]),
        ("M2 Ultra", 48, ["Apple M2 Ultra 128GB", "Apple M2 Ultra 192GB"]),
    ],
)
def test_a_bare_name_takes_the_smallest_part_and_says_how_to_name_the_others(
    text: str, gib: int, others: list[str]
) -> None:
    """A plain A100 must not promise 80 GB that the card may lack; what is told to write works."""
    machine = plan_machine(text)
    assert machine.gpus[0].vram_bytes == pytest.approx(gib * GIB, rel=0.01)
    (assumed,) = machine.assumed
    assert f'"{text}" is read as {machine.gpus[0].name}' in assumed
    named = re.findall(r'"([^"]+)"', assumed)
    assert others == named[1:]
    for other in others:
        exact = plan_machine(other)
        assert ([other], ()) == ([gpu.name for gpu in exact.gpus], exact.assumed)


@pytest.mark.parametrize("sold", instances.instances(), ids=lambda one: one.name)
def test_every_instance_has_known_gpus(sold: instances.Instance) -> None:
    """Each name of the table means its machine alone, with a part that the GPU table has."""
    machine = plan_machine(sold.name)
    assert [sold.gpu] * sold.num_gpus == [gpu.name for gpu in machine.gpus]
    assert sold.name in machine.assumed[0]
    assert (machine.ram_origin is Origin.TABLE) == bool(sold.ram_gib)
    assert machine.ram_bytes == (sold.ram_gib or 0) * GIB or machine.ram_origin is Origin.DEFAULT
    assert ("B of RAM" in machine.notes[-1]) == (not sold.ram_gib)
    assert plan_machine(sold.name, ram="7G").ram_bytes == 7 * GIB


@pytest.mark.parametrize(
    ("ram_gib", "usable_gib"), [(16, 32 / 3), (32, 64 / 3), (36, 27), (64, 48), (192, 144)]
)
def test_a_mac_s_gpu_may_use_a_part_of_its_memory(ram_gib: int, usable_gib: float) -> None:
    """As recommendedMaxWorkingSetSize says on Macs of these sizes."""
    assert gputable.apple_usable_bytes(ram_gib * GIB) == pytest.approx(usable_gib * GIB)


def test_an_apple_chip_is_planned_with_a_caution() -> None:
    """Its memory is the processor's too, and nobody has measured a run there."""
    machine = plan_machine("Apple M3 Max 64GB")
    assert ("mps", 48 * GIB, 64 * GIB) == (
        machine.backend,
        machine.gpus[0].vram_bytes,
        machine.ram_bytes,
    )
    assert ["share 64 GiB, of which 48.0 are", "No run of this program was measured"] == [
        re.search(wanted, " ".join(machine.notes))[0]  # type: ignore[index]
        for wanted in ("share 64 GiB, of which 48.0 are", "No run of this program was measured")
    ]


def test_of_a_shared_memory_only_what_was_free_is_planned_with() -> None:
    """A GB10 reports 121.7 GiB; two boxes had 101 of it free at a start."""
    machine = plan_machine("DGX Spark")
    assert (101 * GIB, 128 * GIB) == (machine.gpus[0].vram_bytes, machine.ram_bytes)
    assert "share 128 GiB, of which 101.0 are taken as the GPU's" in machine.notes[0]


def test_amd_is_planned_as_rocm() -> None:
    """The backend follows the vendor."""
    machine = plan_machine("8x MI300X")
    assert ("rocm", "nvlink", 8) == (machine.backend, machine.interconnect, len(machine.gpus))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0x RTX 4090", "must be between 1 and 64, not 0"),
        ("65x RTX 4090", "must be between 1 and 64, not 65"),
        ("40x H100 + 40x A100", "it asks for 80 GPUs"),
        ("RTX 9090", "nearest known: RTX 5090, RTX 4090, RTX 3090"),
        ("RTX 4900", "nearest known: RTX 4090"),
        ("RXT 4090", "nearest known: RTX 4090"),
        ("H1000", "nearest known: H100"),
        ("RTX 4070 Laptop 12GB", "known: RTX 4070 Laptop"),
        ("2x M2 Ultra", "no machine has another GPU beside that of Apple"),
        ("2x 4090 laptop", "no machine has another GPU beside"),
        ("2 nodes of M2 Ultra", "over several Macs"),
        ("M5 Max", "nearest known: Apple M1 Max 32GB"),
        ("g5", "can be g5.xlarge (1x A10G), g5.2xlarge (1x A10G)"),
        ("p5", "can be p5.4xlarge (1x H100 SXM), p5.48xlarge (8x H100 SXM)"),
        ("ND96", "ND96isr_H100_v5 (8x H100 SXM)"),
        ("DGX A100", "can be DGX A100 320GB (8x A100 SXM 40GB), DGX A100 640GB"),
        ("A4", "can be a4-highgpu-8g (8x B200)"),
        ("p4d.12xlarge", "nearest known: p4d.24xlarge (8x A100 SXM 40GB)"),
        ("trn1.32xlarge", "is no GPU"),
        ("2 nodes of 2x p4d.24xlarge", "say once how many"),
        ("RTX 6000", "RTX 6000 Ada"),
        ("A100 60GB", "known: A100 SXM 80GB, A100 SXM 40GB"),
        ("2x RTX 4090:nvlink", "the RTX 4090 has no NVLink"),
        ("H100 + MI300X", "two vendors"),
        ("2x RTX 4090 +", "name is missing"),
        ("", "name is missing"),
        ("GPU", "name is missing"),
        ("2x H100:infiniband", 'not "infiniband"'),
        ("65 nodes of 8x H100", "must be between 1 and 64, not 65"),
        ("2 nodes", 'no GPU called "nodes"'),
        ("1x H100, 1x 4090:nvlink", "the RTX 4090 has no NVLink"),
    ],
)
def test_text_that_names_no_machine_is_refused(text: str, why: str) -> None:
    """The error is a usage error that tells what is wrong and what is near."""
    with pytest.raises(UserError) as caught:
        plan_machine(text)
    assert why in caught.value.why
    assert ExitCode.USAGE is caught.value.code
