"""The verbs in Python, on the embedded model and images: load, measure chosen diagnostics, read one as an array.

python examples/digits_in_python.py
"""

import vitscope
from vitscope.diagnostics.attention_distance import AttentionDistance
from vitscope.diagnostics.fourier_spectrum import FourierSpectrum


def main():
    subject = vitscope.load("digits")
    images = vitscope.images("digits", split="test", limit=100)
    run = vitscope.measure(subject, images, [FourierSpectrum(), AttentionDistance()])

    spectrum = run["fourier-spectrum"]
    print(spectrum.sel(frequency=1.0).to_series().round(2).to_string())
    distance = run["attention-distance"].mean("head")
    for layer, pixels in zip(distance.layer.values, distance.values, strict=True):
        print(f"layer {layer}: a query looks {pixels:.1f} pixels far on average")
    print("known to be better:", distance.attrs.get("better", spectrum.attrs["better"]))


if __name__ == "__main__":
    main()
