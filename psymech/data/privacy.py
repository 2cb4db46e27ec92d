"""Direct identifiers: columns that name a person are dropped on the way in, and the drop is said."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from psymech.data.findings import Finding
from psymech.data.table import Column, Table

_WHOLE_NAMES = """
    name full_name first_name last_name given_name family_name middle_name maiden_name surname forename
    initials_and_name
    patient_name client_name therapist_name participant_name mother_name next_of_kin emergency_contact
    dob birth birthday birthdate birth_date date_birth date_of_birth place_of_birth birthplace
    mail email e_mail email_address phone phone_no phone_number telephone telephone_number tel mobile mobile_number
    mobile_phone
    cell_phone cellphone fax
    address home_address street street_address postcode post_code postal_code zip zipcode zip_code ip_address
    nhs nhs_no nhs_number ssn social_security social_security_number national_id national_insurance_number passport
    passport_number
    insurance_number mrn medical_record_number hospital_number iban account_number
    vorname nachname familienname geburtsdatum geburtstag geburtsort adresse anschrift strasse telefon telefonnummer
    handy plz
    versichertennummer nom prenom date_de_naissance date_naissance courriel nombre apellido apellidos
    fecha_de_nacimiento
    fecha_nacimiento correo direccion naam voornaam achternaam geboortedatum nome cognome data_di_nascita indirizzo
"""
WHOLE_NAMES: Final = frozenset(_WHOLE_NAMES.split())
"""Names of columns that are dropped, after lower-casing and with words joined by an underscore."""

_WORDS = """
    surname forename firstname lastname fullname dob birthdate birthday email postcode zipcode ssn nhs passport
    telephone
    vorname nachname geburtsdatum telefon prenom apellido voornaam achternaam geboortedatum
"""
WORDS: Final = frozenset(_WORDS.split())
"""Words that give a column away anywhere in its name, unless it holds numbers (email_contacts may be a count)."""

PHRASES: Final = ("first_name", "last_name", "full_name", "date_of_birth", "birth_date", "phone_number", "nhs_number")
EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
POSTCODE_UK: Final = re.compile(r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}", re.IGNORECASE | re.ASCII)
PHONE: Final = re.compile(r"(\+|00?[1-9]|\(0)[\d\s()/.-]{7,18}", re.ASCII)
NHS_LENGTH: Final = 10
MANY: Final = (
    0.9  # share of the distinct values that must look like an identifier; one in eleven numbers does by chance
)
MIN_DISTINCT: Final = 5


def drop_identifying(table: Table, roles: Collection[str]) -> tuple[Table, tuple[Finding, ...]]:
    """Return the table without columns that name people, and a finding for each.

    Columns with a role are kept, since the analysis needs them, with a warning where they name people.  Nothing of a
    dropped column's cells appears in a finding.

    Parameters
    ----------
    table : Table
    roles : collection of str
        Columns that play a role.
    """
    kept: dict[str, Column] = {}
    findings: list[Finding] = []
    for name, column in table.columns.items():
        reason = why_identifying(column)
        if reason and name not in roles:
            why = f"it looks like a direct identifier (personal data; {reason})"
            message = f"Column '{name}' was dropped and not stored: {why}."
            findings.append(Finding("note", "column-identifying", name, (), message, "Rename it if it is not one."))
            continue
        if reason:
            message = f"Column '{name}' has a role, but looks like a direct identifier (personal data; {reason})."
            remedy = "Replace its ids by codes and keep the key elsewhere."
            findings.append(Finding("warning", "ids-identifying", name, (), message, remedy))
        kept[name] = column
    return Table(kept, table.rows, table.in_file, table.source, table.notes, table.index_names), tuple(findings)


def why_identifying(column: Column) -> str:
    """Return why a column looks like a direct identifier; empty where it does not."""
    name = _folded(column.name)
    if name in WHOLE_NAMES:
        return "by its name"
    texts = (
        [cell.strip() for cell in set(column.cells.tolist()) if cell and cell.strip()] if column.kind == "text" else []
    )
    textual = column.kind == "date" or any(not re.fullmatch(r"[\d.+-]{1,4}", text) for text in texts)
    if textual and (WORDS & set(name.split("_")) or any(phrase in name for phrase in PHRASES)):
        return "by its name"
    if any(EMAIL.fullmatch(text) for text in texts):
        return "it holds e-mail addresses"
    if column.kind == "integer":
        texts = [str(cell) for cell in set(column.cells[~column.missing].tolist())]
    return next((f"its values look like {what}" for what, test in LOOKS.items() if _mostly(texts, test)), "")


def _folded(name: str) -> str:
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", name.strip())
    return re.sub(r"[^0-9a-zà-öø-ÿß]+", "_", words.casefold()).strip("_")


def _mostly(texts: list[str], test: Callable[[str], bool]) -> bool:
    return len(texts) >= MIN_DISTINCT and sum(map(test, texts)) >= MANY * len(texts)


def is_nhs_number(text: str) -> bool:
    """Return whether a text is ten digits with the check digit of a British NHS number (modulus 11).

    >>> is_nhs_number("943 476 5919"), is_nhs_number("9434765918")
    (True, False)
    """
    digits = text.replace(" ", "").replace("-", "")
    if len(digits) != NHS_LENGTH or not (digits.isascii() and digits.isdigit()):
        return False
    remainder = sum(int(digit) * weight for digit, weight in zip(digits[:9], range(10, 1, -1), strict=True)) % 11
    return (11 - remainder) % 11 == int(digits[9])


LOOKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "NHS numbers": is_nhs_number,
    "postcodes": lambda text: POSTCODE_UK.fullmatch(text) is not None,
    "telephone numbers": lambda text: PHONE.fullmatch(text) is not None,
}
