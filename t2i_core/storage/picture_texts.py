"""The texts that an image file carries: our record, what A1111-style tools read, EXIF and XMP.

`parameters`: https://github.com/AUTOMATIC1111/stable-diffusion-webui writes and parses it. XMP says by IPTC's
`DigitalSourceType` that a model made the picture, and by properties of IPTC 2025.1 which model, and from what text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from PIL import ExifTags, Image

from t2i_core import __version__

SOFTWARE = f"text2image {__version__}"
RECORD_NAMESPACE = "urn:text2image:1.0"
# diffusers' class -> what A1111-style tools call it.
SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DEISMultistepScheduler": "DEIS",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSDEScheduler": "DPM++ SDE",
    "DPMSolverSinglestepScheduler": "DPM++ 2S",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "FlowMatchHeunDiscreteScheduler": "Heun",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_PROMPT = "Iptc4xmpExt:AIPromptInformation"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XMP = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:text2image="{namespace}">
{properties}
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class PictureTexts:
    """The texts of one image; a format puts each where its readers look for it.

    record: the record as JSON, on one line.
    parameters: as A1111-style tools write it.
    properties: name -> value, of the XMP.
    """

    record: str
    parameters: str
    properties: Mapping[str, str]

    @classmethod
    def of(cls, record: Mapping[str, Any], sampler: str | None = None) -> "PictureTexts":
        """Return the texts of an image record. `sampler`: the class of the model's own scheduler."""
        text = json.dumps(record, ensure_ascii=False, sort_keys=True)
        properties = {
            "xmp:CreatorTool": SOFTWARE,
            "xmp:CreateDate": str(record.get("created", "")),
            "Iptc4xmpExt:DigitalSourceType": _SOURCE,
            "Iptc4xmpExt:AISystemUsed": str(record.get("model_name", "")),
            _PROMPT: str(record.get("spec", {}).get("prompt", "")),
        }
        # The same JSON, written without the few characters that XML cannot hold.
        safe = _NO_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return cls(safe, parameters_text(record, sampler), {k: v for k, v in properties.items() if v})

    def xmp(self, longest: int | None = None) -> bytes:
        """Return the XMP packet; without the prompt where it would have more than `longest` bytes."""
        packet = _packet(self.properties)
        if longest is not None and len(packet) > longest:
            return _packet({name: value for name, value in self.properties.items() if name != _PROMPT})
        return packet

    def xmp_with_record(self) -> bytes:
        """Return the XMP packet with the record, for a format that has no other place for it."""
        return _packet({**self.properties, "text2image:record": self.record})

    def exif(self, comment: str | None = None) -> bytes:
        """Return EXIF that names this tool; with a comment, as UTF-16 where it is not ASCII."""
        exif = Image.Exif()
        exif.endian = ">"  # A1111-style tools read a comment so, whatever the order of the rest
        exif[ExifTags.Base.Software] = SOFTWARE
        if comment is not None:
            code, encoding = (b"ASCII\0\0\0", "ascii") if comment.isascii() else (b"UNICODE\0", "utf-16-be")
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = code + comment.encode(encoding)
        return exif.tobytes().removeprefix(b"Exif\0\0")


def parameters_text(record: Mapping[str, Any], sampler: str | None = None) -> str:
    """Return prompt, negative prompt and settings of an image record as A1111-style tools write them."""
    spec = record.get("spec", {})
    scheduler = spec.get("scheduler") or sampler
    karras = json.loads(spec.get("scheduler_options") or "{}").get("use_karras_sigmas")
    guidance = "guidance_scale" if "true_cfg_scale" not in spec else "true_cfg_scale"
    values = {
        "Steps": spec.get("steps"),
        "Sampler": SAMPLERS.get(scheduler, scheduler) if scheduler else None,
        "Schedule type": "Karras" if karras else None,
        "CFG scale": spec.get(guidance),
        "Distilled CFG Scale": spec.get("guidance_scale") if guidance == "true_cfg_scale" else None,
        "Seed": spec.get("seed"),
        "Size": f"{spec['width']}x{spec['height']}" if "width" in spec and "height" in spec else None,
        "Model": record.get("model_name"),
        "Version": SOFTWARE,
    }
    lines = [str(spec.get("prompt", ""))]
    if spec.get("negative_prompt"):
        lines.append(f"Negative prompt: {spec['negative_prompt']}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in values.items() if value is not None))
    return "\n".join(lines).replace("\0", "")


def _quoted(value: object) -> str:
    """Return a value as its readers expect it: as JSON where a comma, a colon or a line end would divide it."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text


def _packet(properties: Mapping[str, str]) -> bytes:
    values = {name: escape(_NO_XML.sub("\ufffd", value)) for name, value in properties.items()}
    lines = [f"<{name}>{value}</{name}>" for name, value in values.items()]
    return _XMP.format(namespace=RECORD_NAMESPACE, properties="\n".join(lines)).encode()
