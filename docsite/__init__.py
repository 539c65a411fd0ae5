"""The site of the documentation (`make docs`): pages made from the code, and the checks of links."""
