from elias.domain.tier import GIB, TIERS, Gpu, Machine, shortfalls, tier_of


def machine(gpu_gib: int, cores: int, memory_gib: int, disk_gib: int, cards: int = 1) -> Machine:
    gpus = tuple(Gpu(name="card", memory_bytes=gpu_gib * GIB) for _ in range(cards if gpu_gib else 0))
    return Machine(
        cores=cores,
        memory_bytes=memory_gib * GIB,
        disk_bytes=disk_gib * GIB,
        disk_free_bytes=disk_gib * GIB,
        gpus=gpus,
    )


def test_the_seed_table_names_each_tier() -> None:
    assert tier_of(machine(8, 6, 32, 512)).name == "minimum"
    assert tier_of(machine(16, 8, 64, 1000)).name == "recommended"
    assert tier_of(machine(16, 16, 128, 2000, cards=2)).name == "high-end"


def test_a_machine_without_a_gpu_is_a_client_however_large() -> None:
    assert tier_of(machine(0, 64, 512, 8000)).name == "client (Tier 1)"


def test_a_card_sold_as_8_gb_that_shows_a_little_less_still_counts() -> None:
    card = Machine(
        cores=6,
        memory_bytes=31 * GIB,
        disk_bytes=480 * GIB,
        disk_free_bytes=GIB,
        gpus=(Gpu(name="c", memory_bytes=8_150_000_000),),
    )
    assert tier_of(card).name == "minimum"


def test_what_is_lacking_for_the_next_tier_is_said() -> None:
    assert shortfalls(machine(8, 6, 32, 512), TIERS[1]) == (
        "GPU memory: 8 of 16 GiB",
        "CPU cores: 6 of 8",
        "memory: 32 of 64 GiB",
        "disk: 512 of 1000 GiB",
    )
