"""What benchmark tools write, read as it is: the rows of a calibration.

``rows`` is what every reader returns, ``values`` what they read figures with, one module a
tool, ``reading`` tells the tools apart, ``completion`` adds what a file does not say.
"""
