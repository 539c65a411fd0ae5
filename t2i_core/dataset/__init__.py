"""The data set: readers of file formats, the parser of a row, and the values they return."""
