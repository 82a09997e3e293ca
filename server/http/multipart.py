"""Reading a body of multipart/form-data: files to disk as they come, other fields as text.

werkzeug's own reading of forms refuses a field of more than 500 kB, and stores each file twice:
https://github.com/pallets/werkzeug/issues/3003
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from constants import Settings
from server.errors import InvalidRequestError, MalformedFormError, TooLargeError, UnsupportedMediaTypeError
from server.files.incoming import Incoming, IncomingFile
from server.files.placement import MAX_FILES
from server.http.request_parser import FORM

FILES = "files"
"""The field that files are sent in."""
READ_BYTES = 64 * 1024
MAX_HEADER_BYTES = 64 * 1024
"""Of the header of a part, and of what is around the parts."""
LONGEST_BOUNDARY = 200
MAX_FIELDS = 100


@dataclass
class Form:
    """A form. `upload`: its files. `fields`: its texts by name."""

    upload: Incoming
    fields: dict[str, str] = field(default_factory=dict)


def is_form(request: Request) -> bool:
    """Whether the request's body is multipart/form-data."""
    return request.mimetype == FORM


def read_form(request: Request, settings: Settings, upload: Incoming, fields: Collection[str] = ()) -> Form:
    """Read the request's form. Its files become the files of `upload`; `fields` are the other names that it may have.

    Raises `UnsupportedMediaTypeError` for another Content-Type, `MalformedFormError`, `InvalidRequestError` for an
    unknown field, `TooLargeError`, `StorageFullError`, `StoreError`.
    """
    if not is_form(request):
        raise UnsupportedMediaTypeError(
            f"Send the files as {FORM}, in parts called {FILES!r}, as with curl -F {FILES}=@sales.csv."
        )
    request.max_content_length = settings.MAX_UPLOAD_BYTES
    form = Form(upload)
    reader = _Reader(form, fields, settings.MAX_BODY_BYTES)
    try:
        for event in _events(request, _boundary(request)):
            reader.take(event)
    except RequestEntityTooLarge:
        raise TooLargeError(
            f"The upload is longer than {settings.MAX_UPLOAD_BYTES} bytes, the limit of HEARTH_MAX_UPLOAD_BYTES."
        ) from None
    return form


class _Reader:
    """Takes the parts of a form, one after the other."""

    def __init__(self, form: Form, fields: Collection[str], max_text_bytes: int) -> None:
        self._form = form
        self._fields = fields
        self._room = self._max_text_bytes = max_text_bytes
        self._name = ""
        self._file: IncomingFile | None = None
        self._text = bytearray()

    def take(self, event: File | Field | Data) -> None:
        if isinstance(event, File):
            self._name, self._file = event.name, None
            if event.name != FILES:
                raise self._unknown(event.name)
            if len(self._form.upload.files) > MAX_FILES:
                raise TooLargeError(f"The upload has more than {MAX_FILES} files. Send them in several.")
            self._file = self._form.upload.begin(event.filename)
        elif isinstance(event, Field):
            self._name, self._file, self._text = event.name, None, bytearray()
            if event.name == FILES:
                raise InvalidRequestError(f"The part {FILES!r} is no file: it has no file name.")
            if event.name not in self._fields:
                raise self._unknown(event.name)
            if event.name in self._form.fields:
                raise InvalidRequestError(f"The form has the field {event.name!r} twice.")
        elif self._file is not None:
            self._file.write(event.data)
            if not event.more_data:
                self._end_file(self._file)
        else:
            self._add_text(event)

    def _end_file(self, file: IncomingFile) -> None:
        file.close()
        if not file.uploaded_as and not file.bytes:
            # A web page's form sends such a part when no file was chosen.
            self._form.upload.files.remove(file)
            file.discard()

    def _add_text(self, data: Data) -> None:
        self._room -= len(data.data)
        if self._room < 0:
            raise TooLargeError(
                f"The fields of the form are longer than {self._max_text_bytes} bytes, the limit of "
                "HEARTH_MAX_BODY_BYTES. Send large texts as files."
            )
        self._text += data.data
        if not data.more_data:
            try:
                self._form.fields[self._name] = self._text.decode()
            except UnicodeDecodeError as error:
                raise MalformedFormError(f"The field {self._name!r} is not UTF-8: {error}.") from error

    def _unknown(self, name: str | None) -> InvalidRequestError:
        known = ", ".join([*self._fields, f"{FILES} (files)"])
        return InvalidRequestError(f"The form has a part {str(name)[:100]!r}. Its parts may be: {known}.")


def _events(request: Request, boundary: bytes) -> Iterator[File | Field | Data]:
    """The parts of the body as they are read, in chunks. Raises `RequestEntityTooLarge`, `MalformedFormError`."""
    # Texts are counted by the reader. The limit here is for what the decoder has to hold itself.
    decoder = MultipartDecoder(boundary, READ_BYTES + MAX_HEADER_BYTES, max_parts=MAX_FILES + MAX_FIELDS)
    stream, is_open = request.stream, True
    while is_open:
        data = stream.read(READ_BYTES)
        is_open = bool(data)
        try:
            decoder.receive_data(data or None)
        except RequestEntityTooLarge:
            raise MalformedFormError(
                f"A part's header is longer than {MAX_HEADER_BYTES} bytes, or the form's boundary is missing."
            ) from None
        while True:
            try:
                event = decoder.next_event()
            except RequestEntityTooLarge:
                raise TooLargeError(f"The form has more than {MAX_FILES + MAX_FIELDS} parts.") from None
            except ValueError as error:
                raise MalformedFormError(
                    f"The body is not a complete {FORM}: it ends before its last boundary, or a header is broken."
                ) from error
            if isinstance(event, (NeedData, Epilogue)):
                break
            if isinstance(event, (File, Field, Data)):
                yield event


def _boundary(request: Request) -> bytes:
    boundary = parse_options_header(request.content_type)[1].get("boundary", "")
    if not boundary or not boundary.isascii() or len(boundary) > LONGEST_BOUNDARY:
        raise MalformedFormError(
            f"The Content-Type has no usable boundary: it has to be 1 to {LONGEST_BOUNDARY} ASCII characters, as in "
            f"{FORM}; boundary=xyz. HTTP clients make it themselves if you don't set the header."
        )
    return boundary.encode()
