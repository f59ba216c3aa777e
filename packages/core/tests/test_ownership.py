from collections.abc import Iterator
from pathlib import Path

import pytest

from sennit_core import ownership
from sennit_core.ownership import check_distribution


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A site folder with the package `lake`, owned by sennit-lake."""
    package = tmp_path / "lake"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    install(tmp_path, "sennit_lake-0.1.0", "lake/__init__.py,sha256=x,0")
    ownership._installed.cache_clear()
    yield tmp_path
    ownership._installed.cache_clear()


def install(site: Path, name: str, *lines: str) -> None:
    folder = site / f"{name}.dist-info"
    folder.mkdir()
    if lines:
        (folder / "RECORD").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_package_alone_in_its_folder_is_fine(site: Path) -> None:
    install(site, "lakehouse-1.0", "lakehouse/__init__.py,,", "bin/lake/x,,", "snow/lake/y.py,,")
    install(site, "system-1.0")
    check_distribution(str(site / "lake/__init__.py"), "sennit-lake")


def test_unrelated_distribution_in_the_folder_is_refused_with_the_fix(site: Path) -> None:
    install(site, "Lake-2.3.1", "lake-2.3.1.dist-info/METADATA,,", "lake/water.py,,")
    with pytest.raises(ImportError, match="'Lake'") as raised:
        check_distribution(str(site / "lake/__init__.py"), "sennit-lake")
    assert "pip uninstall Lake sennit-lake" in str(raised.value)
    assert raised.value.name == "lake"


def test_spelling_of_the_own_distribution_does_not_matter(site: Path) -> None:
    check_distribution(str(site / "lake/__init__.py"), "Sennit.Lake")


def test_editable_tree_has_no_distributions_to_read(tmp_path: Path) -> None:
    package = tmp_path / "src" / "lake"
    package.mkdir(parents=True)
    check_distribution(str(package / "__init__.py"), "sennit-lake")


def test_package_inside_a_zip_is_left_alone(tmp_path: Path) -> None:
    check_distribution(str(tmp_path / "bundle.zip" / "lake" / "__init__.py"), "sennit-lake")
